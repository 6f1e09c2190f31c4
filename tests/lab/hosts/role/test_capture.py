"""A capture is complete, or reports how many packets it lacks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from lab.errors import CheckError, CommandError
from lab.hosts.interface import Abilities, Node, Provider
from lab.hosts.role import capture
from lab.hosts.role.capture import record_all, recording_at

# When asked it prints the counters in the first line of $COUNTERS and removes that line, but never the last one.
_TCPDUMP = """#!/usr/bin/env python3
import os, signal, sys
file = os.environ["COUNTERS"]
def read():
    return [line.split() for line in open(file).read().splitlines()]
def tell():
    row, *rest = read()
    if rest:
        open(file, "w").write("".join(" ".join(each) + chr(10) for each in rest))
    ends = "{} packets captured, {} packets received by filter, {} packets dropped by kernel"
    print("tcpdump: " + ends.format(*row), file=sys.stderr, flush=True)
def end():
    print("{} packets captured\\n{} packets received by filter\\n{} packets dropped by kernel".format(*read()[0]),
          file=sys.stderr, flush=True)
    os._exit(0)
# Signals wait until the line before them is printed.
asked = {signal.SIGUSR1: tell, signal.SIGINT: end}
signal.pthread_sigmask(signal.SIG_BLOCK, asked)
open(sys.argv[-1], "w").write("pcap")
print("tcpdump: listening on x", file=sys.stderr, flush=True)
while True:
    asked[signal.sigwait(asked)]()
"""


class Here(Node):
    """This machine, with a fake tcpdump."""

    name = "host-a"

    def command(self, words: Sequence[str], *, terminal: bool = False) -> list[str]:
        return list(words)

    def pace(self) -> float:
        return 1.0


class Lab:
    """A provider with one host."""

    abilities = Abilities(xen=False, esp="tunnel")

    def nodes(self) -> dict[str, Node]:
        return {"host-a": Here()}


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "bin" / "tcpdump"
    program.parent.mkdir()
    program.write_text(_TCPDUMP)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("COUNTERS", str(tmp_path / "counters"))
    return tmp_path / "counters"


def recorded(tmp_path: Path) -> capture.Counts:
    with recording_at(Here(), tmp_path / "x.pcap", remote=str(tmp_path / "remote.pcap")) as counts:
        pass
    assert (tmp_path / "x.pcap").read_text() == "pcap"
    assert not (tmp_path / "remote.pcap").exists() and not (tmp_path / "remote.pcap.pid").exists()
    return counts


def test_it_ends_when_all_that_was_received_was_read(tmp_path: Path, counters: Path) -> None:
    counters.write_text("1 9 0\n5 10 0\n9 12 0\n10 12 0\n")
    assert recorded(tmp_path) == capture.Counts(packets=10, dropped=0)


def test_what_the_kernel_dropped_is_counted(tmp_path: Path, counters: Path) -> None:
    counters.write_text("4 9 0\n7 9 2\n")
    assert recorded(tmp_path) == capture.Counts(packets=7, dropped=2)


def test_what_is_never_read_counts_as_dropped(
    tmp_path: Path, counters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "_DRAIN_SECONDS", 0.5)
    counters.write_text("4 9 0\n")
    assert recorded(tmp_path) == capture.Counts(packets=4, dropped=5)


@pytest.mark.parametrize("good", [0, 2, None])
def test_a_capture_that_lacks_packets_is_repeated(
    tmp_path: Path, counters: Path, monkeypatch: pytest.MonkeyPatch, good: int | None
) -> None:
    attempts: list[int] = []
    lab = cast(Provider, Lab())

    def recording_here(node: Node, path: Path, _: str) -> object:
        return recording_at(node, path, remote=str(tmp_path / "remote.pcap"))

    def traffic() -> None:
        counters.write_text("8 8 0\n" if len(attempts) == good else "7 8 1\n")
        attempts.append(1)

    monkeypatch.setattr(capture, "recording_at", recording_here)
    counters.write_text("0 0 0\n")
    if good is None:
        with pytest.raises(CheckError, match="lacks 1 packets, after 3 attempts"):
            record_all(lab, tmp_path / "x.pcap", traffic)
        assert len(attempts) == 3
    else:
        assert record_all(lab, tmp_path / "x.pcap", traffic) == 8
        assert len(attempts) == good + 1


def test_a_tcpdump_that_cannot_start_says_why(tmp_path: Path, counters: Path) -> None:
    program = tmp_path / "bin" / "tcpdump"
    program.write_text("#!/bin/sh\necho no such device >&2\nexit 1\n")
    with pytest.raises(CommandError, match="no such device"):
        recorded(tmp_path)
