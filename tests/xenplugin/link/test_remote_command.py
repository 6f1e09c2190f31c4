"""The command that starts the far side, and the address behind an ssh alias."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from xenplugin.errors import UsageError
from xenplugin.link.remote_process import remote_command, ssh_address


def test_without_a_host_it_is_a_child_of_the_same_python() -> None:
    child = [sys.executable, "-P", "-m", "xenplugin", "receive"]
    assert remote_command("ssh", None, "ignored") == child
    assert remote_command("ssh", None, "ignored", Path("/x.conf")) == [*child, "--config", "/x.conf"]
    with pytest.raises(UsageError):
        remote_command("ssh", "hostb", "xenplugin 'unbalanced")
    with pytest.raises(UsageError, match="is empty"):
        remote_command("ssh", "hostb", " ")


@pytest.mark.parametrize("ssh", ["", "  "])
def test_without_ssh_the_host_is_the_command(ssh: str) -> None:
    assert remote_command(ssh, "ip netns exec b xenplugin receive", "ignored") == [
        "sh", "-c", "exec ip netns exec b xenplugin receive",
    ]  # fmt: skip


@pytest.mark.parametrize("host", ["-oProxyCommand=touch /tmp/x", "-", "--", "-l root hostb"])
def test_a_host_is_never_an_option(host: str) -> None:
    with pytest.raises(UsageError):
        remote_command("ssh", host, "xenplugin")


@pytest.mark.parametrize(
    ("ssh", "host", "program", "words"),
    [
        ("printf '%s\\n'", "hostb", "xenplugin", ["hostb", "xenplugin", "receive"]),
        ("printf '%s\\n' -o 'A b'", "u@h", "'/opt/x y' -v", ["-o", "A b", "u@h", "/opt/x y", "-v", "receive"]),
        ("printf '%s\\n'", "$(id); `id` 'x \"y", "p", ["$(id); `id` 'x \"y", "p", "receive"]),
        ("IFS=: printf '%s\\n'", "a:b c", "p", None),
    ],
)
def test_words_reach_the_command_as_they_are(ssh: str, host: str, program: str, words: list[str] | None) -> None:
    import subprocess

    command = remote_command(ssh, host, program)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if words is not None:
        assert done.stdout.splitlines() == words
    assert "uid=" not in done.stdout


def test_no_secret_is_in_the_command() -> None:
    assert not any(
        len(word) >= 32 and set(word) <= set("0123456789abcdef") for word in remote_command("ssh", "h", "p")
    )


@pytest.fixture
def fake_ssh(tmp_path: Path) -> Callable[[str], str]:
    """A program called ssh that answers -G HOST with a text."""

    def make(answer: str) -> str:
        path = tmp_path / "ssh"
        path.write_text(f'#!/bin/sh\n[ "$1$2" = -G"hostb" ] || exit 9\nprintf \'{answer}\'\n')
        path.chmod(0o755)
        return str(path)

    return make


@pytest.mark.parametrize(
    ("answer", "address"),
    [
        ("user root\\nhostname 192.0.2.9\\nport 22\\n", "192.0.2.9"),
        ("hostname hostb.example\\nproxyjump none\\n", "hostb.example"),
        ("hostname 192.0.2.9\\nproxyjump gate\\n", None),
        ("hostname 192.0.2.9\\nproxycommand nc %%h %%p\\n", None),
        ("", None),
        ("\\377\\n", None),
    ],
)
def test_the_address_behind_an_alias(fake_ssh: Callable[[str], str], answer: str, address: str | None) -> None:
    assert ssh_address(fake_ssh(answer), "hostb") == address


@pytest.mark.parametrize("ssh", ["", "rsh", "/nonexistent/ssh", "ssh 'open quote", "sh -c ssh"])
def test_no_ssh_no_address(ssh: str) -> None:
    assert ssh_address(ssh, "hostb") is None


@pytest.mark.parametrize(
    "ssh",
    ["ssh", "/usr/bin/ssh", "ssh -tt", "ssh -p 22 -4tt", "ssh -p22 -i '/a key'", "ssh -oTunnel=no", "ssh -vp 22"],
)
def test_ssh_is_asked_for_no_terminal(ssh: str) -> None:
    """(The last of -t and -T counts, and both win over ssh_config.)"""
    assert remote_command(ssh, "hostb", "xenplugin")[2] == f'exec {ssh} -T "$@"'


@pytest.mark.parametrize(
    "command", ["rsh -n", "ssh jump ssh", "ssh -p 22 jump sh -c", "ip netns exec", "ssh 'unbalanced", "sudo ssh"]
)
def test_another_command_is_left_alone(command: str) -> None:
    assert remote_command(command, "hostb", "xenplugin")[2] == f'exec {command} "$@"'
