"""What the other host may say when it is asked."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.xenplugin.migrate.two_hosts import DEAD, ID, UUID, S
from xenplugin.migrate.ownership import records
from xenplugin.migrate.ownership.records import PeerNote, Record
from xenplugin.migrate.ownership.states import NoAnswer, OwnershipState
from xenplugin.migrate.recovery import peer
from xenplugin.migrate.recovery.peer import OwnerAnswer


def test_both_outputs_and_the_status_are_returned() -> None:
    assert peer._run_bounded(["sh", "-c", "echo out; echo err >&2; exit 3"], 30) == (3, "out\n", "err\n")


@pytest.mark.parametrize("where", ["", " >&2"])
def test_only_the_end_of_a_long_output_is_kept(where: str) -> None:
    status, out, err = peer._run_bounded(["sh", "-c", f"head -c 20000000 /dev/zero{where}; echo end{where}"], 60)
    text = out + err
    assert status == 0 and len(text) == 1 << 16 and text.endswith("\0end\n")


def test_a_command_that_does_not_end_is_killed() -> None:
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        peer._run_bounded(["sh", "-c", "exec yes"], 0.5)
    with pytest.raises(subprocess.TimeoutExpired):
        peer._run_bounded(["sh", "-c", "exec sleep 600 >&- 2>&-"], 0.5)
    assert time.monotonic() - began < 300


@pytest.fixture
def one() -> Record:
    return replace(records.new(S, ID, uuid=UUID, name="g1", peer=PeerNote("hostb", "")), driver=DEAD)


@pytest.fixture
def say(tmp_path: Path, one: Record) -> Callable[[str], tuple[object, str]]:
    """Ask a host whose ssh is this script; its words are HOST and the command."""

    def asked(script: str, name: str = "ssh", **known: str) -> tuple[object, str]:
        ssh = tmp_path / name
        ssh.write_text("#!/bin/sh\n" + script)
        ssh.chmod(0o755)
        return peer.ask(replace(one, peer=PeerNote("hostb", str(ssh), **known)), 20)

    return asked


Say = Callable[..., tuple[object, str]]
GOOD = peer.line(ID, OwnerAnswer("running"))
DOWN = "ssh: connect to host hostb port 22: "


def test_only_a_valid_answer_of_the_peer_counts(one: Record, say: Say) -> None:
    assert say(f"echo '{GOOD}'")[0] is OwnershipState.RUNNING
    assert say(f"echo hello; echo '{GOOD}'; echo bye")[0] is OwnershipState.RUNNING
    for script in (
        "echo nothing",
        f"echo '{GOOD}'; echo '{peer.line(ID, OwnerAnswer('refused'))}'",
        f"echo '{peer.line('f' * 32, OwnerAnswer('running'))}'",
        f"echo '{peer.MARK}nonsense'",
        f"echo '{peer.MARK}[1]'",
        f"echo '{GOOD}'; exit 1",
        f"echo '{GOOD.replace('OWNER 2', 'OWNER 1')}'",
        f"echo '{peer.line(ID, OwnerAnswer('kept'))}'",
    ):
        assert say(script)[0] is NoAnswer.UNCLEAR, script
    assert peer.command(PeerNote("-oProxyCommand=x", "ssh"), "recover") is None
    assert peer.ask(replace(one, peer=PeerNote("hostb", "sleep 60; true")), 0.2)[0] is NoAnswer.UNCLEAR


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        (f"echo '{DOWN}No route to host' >&2; exit 255", NoAnswer.UNREACHABLE),
        (f"echo '{DOWN}Connection timed out' >&2; exit 255", NoAnswer.UNREACHABLE),
        (
            "echo 'ssh: Could not resolve hostname hostb: Name or service not known' >&2; exit 255",
            NoAnswer.UNREACHABLE,
        ),
        (
            "echo 'channel 0: open failed: connect failed: No route to host' >&2\n"
            "echo 'stdio forwarding failed' >&2; exit 255",
            NoAnswer.UNREACHABLE,
        ),
        # Signs of life: of a kernel without sshd, of sshd, of a shell, of a program.
        (f"echo '{DOWN}Connection refused' >&2; exit 255", NoAnswer.UNCLEAR),
        ("echo 'root@hostb: Permission denied (publickey).' >&2; exit 255", NoAnswer.UNCLEAR),
        ("echo 'Host key verification failed.' >&2; exit 255", NoAnswer.UNCLEAR),
        ("echo 'Connection closed by 10.0.0.2 port 22' >&2; exit 255", NoAnswer.UNCLEAR),
        (f"echo 'a shell says'; echo '{DOWN}No route to host' >&2; exit 255", NoAnswer.UNCLEAR),
        ("echo 'sh: 1: xenplugin: not found' >&2; exit 127", NoAnswer.UNCLEAR),
        ("echo 'xenplugin: error: no such option: --guest' >&2; exit 2", NoAnswer.UNCLEAR),
        ("exit 255", NoAnswer.UNCLEAR),  # a far program that was killed
    ],
)
def test_unreachable_is_only_a_host_to_which_no_connection_is_made(say: Say, script: str, answer: NoAnswer) -> None:
    found, why = say(script)
    assert found is answer and why.startswith("hostb ")


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("echo no link >&2; exit 1", NoAnswer.UNREACHABLE),
        ("[ $2 = echo ] && exec $2 $3; exit 1", NoAnswer.UNCLEAR),  # a shell, but no xenplugin
        ("[ $2 = echo ] && exec $2 $3; exit 255", NoAnswer.UNCLEAR),
    ],
)
def test_a_transport_that_is_not_ssh_is_asked_for_an_echo(say: Say, script: str, answer: NoAnswer) -> None:
    assert say(script, "socat-to")[0] is answer


def test_without_a_way_to_ask_nothing_was_reached(one: Record) -> None:
    assert peer.ask(one)[0] is NoAnswer.UNREACHABLE  # -s '': HOST was a whole command
    assert not peer.answers(one)


@pytest.mark.parametrize("state", [peer.UNKNOWN, peer.UNREADABLE])
@pytest.mark.parametrize(
    ("guest", "answer"),
    [("NONE", NoAnswer.ABSENT), ("LIVE", NoAnswer.PRESENT), ("STILL", NoAnswer.UNCLEAR), ("", NoAnswer.UNCLEAR)],
)
def test_without_a_record_the_domains_are_the_answer(say: Say, state: str, guest: str, answer: NoAnswer) -> None:
    found, why = say(f"echo '{peer.line(ID, OwnerAnswer(state, guest))}'")
    assert found is answer and "record" in why


@pytest.mark.parametrize(
    ("machine", "key", "answer"),
    [
        ("m", "k", OwnershipState.RUNNING),
        ("m", "", OwnershipState.RUNNING),
        ("", "", OwnershipState.RUNNING),
        ("other", "k", NoAnswer.UNCLEAR),
        ("m", "other", NoAnswer.UNCLEAR),
        ("other", "other", NoAnswer.UNCLEAR),  # whose domains were not looked at
    ],
)
def test_the_answer_of_another_machine_is_not_used(
    say: Say, machine: str, key: str, answer: NoAnswer | OwnershipState
) -> None:
    line = peer.line(ID, OwnerAnswer("running", "", machine, key))
    found, why = say(f"echo '{line}'", machine="m", key="k")
    assert found is answer and ("machine" in why or isinstance(answer, OwnershipState))


def test_another_machine_in_the_place_of_the_peer(say: Say) -> None:
    line = peer.line(ID, OwnerAnswer(peer.UNKNOWN, "NONE", "other", "other"))
    found, why = say(f"echo '{line}'", machine="m", key="k")
    assert found is NoAnswer.ELSEWHERE and "another machine" in why
    for answer in (
        OwnerAnswer(peer.UNKNOWN, "LIVE", "other", "other"),
        OwnerAnswer(peer.UNKNOWN, "NONE", "m", "other"),
    ):
        assert say(f"echo '{peer.line(ID, answer)}'", machine="m", key="k")[0] is NoAnswer.UNCLEAR
