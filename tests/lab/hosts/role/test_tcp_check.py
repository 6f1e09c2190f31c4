"""The check that TCP passes, with hosts that are processes of this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from lab.errors import CheckError, CommandError
from lab.hosts.interface import Node
from lab.hosts.role import tcp_check
from netem.profile import Profile

LOOPBACK = "127.0.0.1"
_ANSWERING = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
peer = listener.accept()[0]
data = bytearray()
while part := peer.recv(1 << 16):
    data += part
"""


class Here(Node):
    """This machine. `program` replaces the listening program."""

    def __init__(self, name: str, program: str | None = None) -> None:
        self.name = name
        self.program = program
        self.started: list[subprocess.Popen[Any]] = []

    def command(self, words: Sequence[str], *, terminal: bool = False) -> list[str]:
        assert words[:2] == ["python3", "-c"]
        return [sys.executable, *words[1:]]

    def pace(self) -> float:
        return 1.0

    def popen(self, words: Sequence[str], **kwargs: Any) -> subprocess.Popen[Any]:
        if self.program is not None:
            words = [*words[:2], self.program, *words[3:]]
        self.started.append(super().popen(words, **kwargs))
        return self.started[-1]


def check(there: Here, address: str = LOOPBACK, profile: Profile | None = None) -> None:
    try:
        tcp_check.check(Here("host-a"), there, address, profile or Profile(), "look there")
    finally:
        assert [each.poll() is not None for each in there.started] == [True], "the listener has ended"


def test_what_comes_back_unchanged_passes() -> None:
    check(Here("host-b"))


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ("data[1000] ^= 1; peer.sendall(data)", r"262144 of 262144 bytes came back, changed"),
        ("peer.sendall(data[:1000])", r"1000 of 262144 bytes came back$"),
        ("import time; time.sleep(600)", r"0 of 262144 bytes came back \(timed out\)"),
    ],
)
def test_what_is_lost_or_changed_is_an_error(monkeypatch: pytest.MonkeyPatch, answer: str, what: str) -> None:
    if "sleep" in answer:
        monkeypatch.setattr(tcp_check, "_SECONDS", 1.0)
    with pytest.raises(
        CheckError, match=f"ping passes between host-a and host-b, but TCP does not: {what}"
    ) as error:
        check(Here("host-b", _ANSWERING + answer))
    assert error.value.hint == "look there"


def test_a_refused_connection_is_an_error() -> None:
    nobody = 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1], flush=True)'
    with pytest.raises(CheckError, match=r"0 of 262144 bytes came back .*refused"):
        check(Here("host-b", f"{nobody}\nimport time; time.sleep(600)"))


def test_a_host_that_cannot_listen_says_why() -> None:
    with pytest.raises(CommandError, match=r"host-b: nothing listens on 192\.0\.2\.1: .*Cannot assign"):
        check(Here("host-b"), "192.0.2.1")


@pytest.mark.parametrize(
    ("profile", "count"),
    [
        (Profile(), 256 << 10),
        (Profile.parse(rate="100mbit", rtt="200ms", loss="1%"), 256 << 10),
        (Profile.parse(rate="64kbit"), 80_000),
        (Profile.parse(rate="1kbit"), 16 << 10),
        (Profile.parse(loss="20%"), 16 << 10),
    ],
)
def test_a_slow_link_carries_less(profile: Profile, count: int) -> None:
    assert tcp_check.amount(profile) == count
