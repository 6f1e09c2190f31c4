"""How the far side is started: what a shell, a login banner or ssh may write before its ready line."""

from __future__ import annotations

import os
import resource
import shlex
import signal
from collections.abc import Callable, Iterator

import pytest

from xenplugin import __version__
from xenplugin.errors import LinkError, PeerError, XenpluginError
from xenplugin.link.ready_line import RECEIVE, ready_line
from xenplugin.link.remote_process import RemoteProcess, remote_command

RANDOM = bytes(range(32))
READY = ready_line(RECEIVE, random=RANDOM.hex()).decode().rstrip("\n")
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
    assert number == "2" and fields == f'{{"random": "{RANDOM.hex()}", "version": "{__version__}"}}'


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


@pytest.mark.parametrize("before", ["", "echo 'Welcome to hostb!';"])
def test_xls_own_receiver_is_recognized_at_once(start: Start, before: str) -> None:
    """As behind Ganeti's `socat - TCP:HOST:PORT #`, whose far end listens with xl."""
    banner = "xl migration receiver ready, send binary domain data."
    with pytest.raises(PeerError, match="xl's own receiver") as caught:
        start(f"{before} echo '{banner}'; exec cat >/dev/null").await_ready(60)
    assert caught.value.hint


def test_endless_noise_is_not_read_for_ever(start: Start) -> None:
    error = refused(start, "exec cat /dev/zero")
    assert isinstance(error, PeerError) and error.hint and "start-up" in error.hint


def test_silence_is_a_lost_link(start: Start) -> None:
    error = refused(start, "exec cat", 0.05)
    assert isinstance(error, LinkError) and "hostb" in error.message
    assert error.hint and "patience" in error.hint
    assert isinstance(refused(start, "echo XENPLUGIN-RECEIVE; exec cat", 0.05), LinkError)


@pytest.mark.parametrize("number", ["0", "1", "3", "10", "01", "one", "", "\\377", "9" * 3000])
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
    error = refused(start, f"printf '%s\\n' {shlex.quote('XENPLUGIN-RECEIVE 2 ' + fields)}")
    assert isinstance(error, PeerError)


def test_a_terminal_on_the_way_is_named(start: Start) -> None:
    """It turns each line feed into two characters; what follows would look like tampering."""
    error = refused(start, f"printf '%s\\r\\n' {shlex.quote(READY)}")
    assert isinstance(error, PeerError) and "terminal" in error.message
    assert error.hint and "RequestTTY" in error.hint


def test_descriptors_above_1023(start: Start) -> None:
    """(select(2) cannot have them.)"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    taken = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while taken[-1] < 1023:
            taken.append(os.dup(taken[0]))
        start(SAY).await_ready(60)
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("code", [126, 127])
def test_a_program_that_is_not_there_gets_a_hint(start: Start, code: int) -> None:
    error = refused(start, f"echo 'sh: 1: exec: xenplugin: not found' >&2; exit {code}")
    assert isinstance(error, PeerError) and error.hint and "--remote-program" in error.hint
    assert "not found" in error.message and str(code) in error.message


def test_a_command_that_this_host_does_not_have_gets_another_hint() -> None:
    far = RemoteProcess(remote_command("no-ssh", "hostb", "xenplugin"), "hostb", lambda _: None)
    with pytest.raises(PeerError, match="no-ssh") as caught:
        far.await_ready(60)
    assert caught.value.hint == "install that program on this host, or give another command with -s"


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (
            "ssh: connect to host hostb port 22: No route to host",
            "to see why",
        ),
        (
            "Host key verification failed.",
            "to check and accept its host key",
        ),
    ],
)
def test_a_host_that_cannot_be_reached_is_a_link_error(start: Start, said: str, hint: str) -> None:
    error = refused(start, f"echo {shlex.quote(said)} >&2; exit 255")
    assert (
        isinstance(error, LinkError)
        and said in error.message
        and error.hint == f"{hint}, log in by hand, as this user: ssh hostb"
    )


def test_a_host_in_a_hint_is_quoted() -> None:
    far = RemoteProcess(["sh", "-c", "exit 255"], "hostb; reboot", lambda _: None)
    with pytest.raises(LinkError) as caught:
        far.await_ready(60)
    assert (caught.value.hint or "").endswith("ssh 'hostb; reboot'")


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_program_that_ends_at_once_is_quoted(start: Start, code: int) -> None:
    error = refused(start, f"echo 'usage: something'; exit {code}")
    assert isinstance(error, PeerError) and error.hint
    assert error.hint == "to see why, as this user: ssh hostb xenplugin --version"
    assert "usage: something" in error.message and f"status {code}" in error.message


def test_a_command_that_cannot_be_started() -> None:
    with pytest.raises(PeerError):
        RemoteProcess(["/nonexistent/ssh", "hostb"], "hostb", lambda _: None)


def test_stderr_is_reported_line_by_line() -> None:
    lines: list[str] = []
    far = RemoteProcess(["sh", "-c", "printf 'one\\n\\n  two  \\n\\377three' >&2; exec cat"], "hostb", lines.append)
    far.channel(None).close()
    assert far.end(30) == 0
    assert lines == ["one", "  two", "\ufffdthree"]


def test_one_that_does_not_end_is_ended(start: Start) -> None:
    far = start(f"trap '' HUP; {SAY}; exec cat /dev/zero")
    far.await_ready(60)
    assert far.end(0) == -signal.SIGTERM
