"""How the far side is started and found: what a shell, a login banner or an ssh may say before it speaks."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xenplugin import __version__
from xenplugin.errors import LinkError, PeerError, UsageError, XenpluginError
from xenplugin.link import listener
from xenplugin.link.remote_process import RemoteProcess, deferred_signals, ready_line, remote_command, ssh_address

RANDOM = bytes(range(32))
READY = ready_line(RANDOM).decode().rstrip("\n")
SAY = f"printf '%s\\n' {shlex.quote(READY)}"
Start = Callable[[str], RemoteProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a shell command as the far side."""
    started: list[RemoteProcess] = []

    def make(command: str) -> RemoteProcess:
        started.append(RemoteProcess(["sh", "-c", command], "hostb", lambda _: None))
        return started[-1]

    yield make
    for far in started:
        far._process.kill()
        far.end(30)


def test_the_line_is_the_formats() -> None:
    number, _, fields = READY.removeprefix("XENPLUGIN-RECEIVE ").partition(" ")
    assert number == "1" and fields == f'{{"random": "{RANDOM.hex()}", "version": "{__version__}"}}'


@pytest.mark.parametrize(
    "before",
    [
        "",
        "echo 'Welcome to hostb!';",
        "printf 'no newline at the end> ';",
        "printf 'XENPLUGIN-RECEIV';",
        "printf '\\377\\000\\033[2J';",
        "head -c 60000 /dev/zero;",
        "head -c 65536 /dev/zero; echo;",
        "echo noise >&2;",
    ],
)
def test_noise_before_the_line_is_skipped_and_what_follows_is_kept(start: Start, before: str) -> None:
    far = start(f"{before} {SAY}; printf 'frames'; exec cat")
    far.await_ready(60)
    assert far.random == RANDOM
    channel = far.channel(None)
    seen, space = b"", memoryview(bytearray(100))
    while len(seen) < len(b"framesecho"):
        if seen == b"frames":
            channel.send(b"ec", b"ho")
        seen += bytes(space[: channel.receive_into(space)])
    assert seen == b"framesecho"
    channel.close()
    assert far.end(30) == 0


def test_a_line_that_comes_in_pieces(start: Start) -> None:
    half = len(READY) // 2
    far = start(f"printf %s {shlex.quote(READY[:half])}; read x; printf '%s\\n' {shlex.quote(READY[half:])}")
    assert far._process.stdin is not None
    far._process.stdin.write(b"\n")
    far.await_ready(60)
    assert far.random == RANDOM


def refused(start: Start, command: str, timeout: float = 60) -> XenpluginError:
    with pytest.raises(XenpluginError) as caught:
        start(command).await_ready(timeout)
    return caught.value


def test_endless_noise_is_not_read_for_ever(start: Start) -> None:
    error = refused(start, "exec cat /dev/zero")
    assert isinstance(error, PeerError) and error.hint and "start-up" in error.hint


def test_silence_is_a_lost_link(start: Start) -> None:
    error = refused(start, "exec cat", 0.05)
    assert isinstance(error, LinkError) and "hostb" in error.message
    assert isinstance(refused(start, "echo XENPLUGIN-RECEIVE; exec cat", 0.05), LinkError)


@pytest.mark.parametrize("number", ["0", "2", "10", "01", "one", "", "\\377", "9" * 3000])
def test_another_version_is_named(start: Start, number: str) -> None:
    error = refused(start, f"printf 'XENPLUGIN-RECEIVE {number} {{}}\\n'")
    assert isinstance(error, PeerError) and len(error.message) < 200
    assert error.hint and "version" in error.hint


@pytest.mark.parametrize(
    "fields",
    [
        "",
        "{",
        "[]",
        "5",
        "{}",
        '{"random":5}',
        '{"random":null}',
        '{"random":"zz"}',
        '{"random":"00"}',
        "[" * 60000,
    ],
)
def test_an_introduction_that_makes_no_sense(start: Start, fields: str) -> None:
    error = refused(start, f"printf '%s\\n' {shlex.quote('XENPLUGIN-RECEIVE 1 ' + fields)}")
    assert isinstance(error, PeerError)


@pytest.mark.parametrize("code", [126, 127])
def test_a_program_that_is_not_there_gets_a_hint(start: Start, code: int) -> None:
    error = refused(start, f"echo 'sh: 1: xenplugin: not found' >&2; exit {code}")
    assert isinstance(error, PeerError) and error.hint and "--remote-program" in error.hint
    assert "not found" in error.message and str(code) in error.message


def test_a_host_that_cannot_be_reached_is_a_link_error(start: Start) -> None:
    said = "ssh: connect to host hostb port 22: No route to host"
    error = refused(start, f"echo {shlex.quote(said)} >&2; exit 255")
    assert isinstance(error, LinkError) and said in error.message


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_program_that_ends_at_once_is_quoted(start: Start, code: int) -> None:
    error = refused(start, f"echo 'usage: something'; exit {code}")
    assert isinstance(error, PeerError) and error.hint is None
    assert "usage: something" in error.message and f"status {code}" in error.message


def test_a_command_that_cannot_be_started() -> None:
    with pytest.raises(PeerError):
        RemoteProcess(["/nonexistent/ssh", "hostb"], "hostb", lambda _: None)


def test_what_it_writes_to_stderr_is_told_line_by_line() -> None:
    lines: list[str] = []
    far = RemoteProcess(["sh", "-c", "printf 'one\\n\\n  two  \\n\\377three' >&2; exec cat"], "hostb", lines.append)
    far.channel(None).close()
    assert far.end(30) == 0
    assert lines == ["one", "  two", "\ufffdthree"]


def test_one_that_does_not_end_is_ended(start: Start) -> None:
    far = start(f"trap '' HUP; {SAY}; exec cat /dev/zero")
    far.await_ready(60)
    assert far.end(0) == -signal.SIGTERM


# -- commands -------------------------------------------------------------------------------------


def test_without_a_host_it_is_a_child_of_the_same_python() -> None:
    child = [sys.executable, "-P", "-m", "xenplugin", "receive"]
    assert remote_command("ssh", None, "ignored") == child
    assert remote_command("ssh", None, "ignored", Path("/x.conf")) == [*child, "--config", "/x.conf"]
    with pytest.raises(UsageError):
        remote_command("ssh", "hostb", "xenplugin 'unbalanced")


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


# -- where data connections arrive ----------------------------------------------------------------


def free_range(count: int) -> range:
    """`count` ports in a row that are free on loopback now."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            low = first.getsockname()[1]
        socks = [socket.socket() for _ in range(count)]
        try:
            for sock, port in zip(socks, range(low, low + count), strict=True):
                sock.bind(("127.0.0.1", port))
            return range(low, low + count)
        except (OSError, OverflowError):
            continue
        finally:
            for sock in socks:
                sock.close()


def test_the_first_free_port_of_the_range() -> None:
    ports = free_range(3)
    one = listener.bind(ports, local=True)
    two = listener.bind(ports, local=True)
    assert one and two
    with one, two:
        assert one.getsockname() == ("127.0.0.1", ports[0]) and two.getsockname()[1] == ports[1]
        assert listener.bind(ports[:2], local=True) is None
        assert listener.bind(ports[:2], local=False) is None
    assert listener.bind(range(0), local=False) is None


def test_every_address_is_listened_on_unless_local() -> None:
    sock = listener.bind(free_range(1), local=False)
    assert sock is not None
    with sock, socket.create_connection(("127.0.0.1", sock.getsockname()[1])) as client:
        accepted, _ = sock.accept()
        with accepted:
            assert accepted.getpeername()[1] == client.getsockname()[1]
        assert sock.getsockname()[0] in ("::", "0.0.0.0")


def test_strangers_are_few_until_they_prove_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    import queue

    monkeypatch.setattr(listener, "STRANGERS", 2)
    arrived: queue.Queue[tuple[socket.socket, Callable[[], None], queue.Queue[None]]] = queue.Queue()

    def welcome(connection: socket.socket, known: Callable[[], None]) -> None:
        leave: queue.Queue[None] = queue.Queue()
        arrived.put((connection, known, leave))
        leave.get(timeout=60)
        connection.close()

    sock = listener.bind(free_range(1), local=True)
    assert sock is not None
    door = listener.Listener(sock, welcome)

    def visit() -> socket.socket:
        return socket.create_connection(("127.0.0.1", door.port), timeout=60)

    guests = [visit(), visit()]
    first, second = arrived.get(timeout=60), arrived.get(timeout=60)
    with visit() as third:
        assert third.recv(1) == b"", "there is no room for a third stranger"
    first[1]()
    first[1]()  # twice makes no second place
    guests.append(visit())
    fourth = arrived.get(timeout=60)
    with visit() as fifth:
        assert fifth.recv(1) == b""
    for _, _, leave in (first, second, fourth):
        leave.put(None)
    for guest in guests:
        assert guest.recv(1) == b""
        guest.close()
    door.close()
    with pytest.raises(OSError):
        visit()


def test_addresses_the_one_ssh_came_to_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = """[
        {"addr_info": [{"local": "127.0.0.1", "scope": "host"}]},
        {"addr_info": [{"local": "2001:db8::5", "scope": "global"},
                       {"local": "2001:db8::6", "scope": "global", "deprecated": true},
                       {"local": "fe80::1", "scope": "link"},
                       {"local": "192.0.2.5", "scope": "global"}]},
        {"addr_info": [{"local": "198.51.100.5", "scope": "global"}]}, {}]"""
    (tmp_path / "ip").write_text(f"#!/bin/sh\n/bin/cat <<'X'\n{answer}\nX\n")
    (tmp_path / "ip").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SSH_CONNECTION", "203.0.113.1 1000 198.51.100.5 22")
    assert listener.addresses() == ["198.51.100.5", "192.0.2.5", "2001:db8::5"]
    monkeypatch.setenv("SSH_CONNECTION", "nonsense")
    assert listener.addresses() == ["192.0.2.5", "198.51.100.5", "2001:db8::5"]
    (tmp_path / "ip").write_text("#!/bin/sh\necho 'no json'\n")
    assert listener.addresses() == []
    (tmp_path / "ip").unlink()
    monkeypatch.setenv("SSH_CONNECTION", "203.0.113.1 1000 192.0.2.77 22")
    assert listener.addresses() == ["192.0.2.77"]


def test_signals_wait_until_what_was_started_is_known() -> None:
    known = False
    with pytest.raises(KeyboardInterrupt):
        with deferred_signals():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0)  # where it would have been raised
            known = True
    assert known
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
