"""What the check keeps in memory has bounds, and whatever does not fit is said."""

from __future__ import annotations

import gc
import gzip
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scapy", reason="scapy is not installed")
pytest.importorskip("numpy", reason="numpy is not installed")

from scapy.layers.inet import IP, TCP

from lab.verify.content.canary import Finder, make_canaries, needles
from lab.verify.content.inflate import Windows
from lab.verify.content.scanner import Scanner
from lab.verify.judge import check
from lab.verify.judge import stream as streams
from lab.verify.judge.check import Finding, check_capture
from lab.verify.tcp import order
from lab.verify.tcp.order import Order
from lab.verify.tcp.recent import LAST, Room
from tests.helpers.wire import A, B, noise, stream, write

CANARIES = make_canaries(2, "memory")
FINDER = Finder(needles(CANARIES))
PREAMBLE = b"\x89XPS\r\n\x1a\n" + noise(56)


def zstd(log: int, blocks: int) -> bytes:
    """The beginning of a frame with a window of 2 ** `log` bytes, that gives `blocks` times 128 KiB of zeros."""
    block = (131072 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd" + bytes([0, (log - 10) << 3]) + block * blocks


def test_windows_of_decoders_are_bounded_together() -> None:
    windows = Windows(66 << 20)
    scanners = [Scanner(FINDER, windows) for _ in range(4)]
    for scanner in scanners:
        scanner.feed(zstd(25, 300))
    assert windows.left == 1 << 20 and [scanner.unfollowed for scanner in scanners] == [0, 0, 1, 1]
    del scanner, scanners[0]
    assert windows.left == (33 << 20) + (1 << 19)  # at once, not when garbage is collected
    scanners[1].feed(zstd(25, 300))
    assert scanners[1].unfollowed == 1 and windows.left <= 1 << 20


def test_small_windows_and_what_was_chance_cost_little() -> None:
    windows = Windows(64 << 20)
    scanner = Scanner(FINDER, windows)
    scanner.feed(noise(1 << 20) + zstd(11, 600))
    assert windows.left > 63 << 20 and scanner.unfollowed == 0
    scanner.feed(noise(1 << 20))
    assert windows.left == 64 << 20


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_all_kinds_of_decoders_count(pack: Any) -> None:
    windows = Windows(20 << 20)
    scanner = Scanner(FINDER, windows)
    scanner.feed(pack(bytes(30 << 20) + noise(9))[:-30])
    assert scanner.unfollowed == (1 if pack is lzma.compress else 0)
    assert windows.left < 20 << 20 or scanner.unfollowed


def test_decoders_within_decoders_count() -> None:
    windows = Windows(33 << 20)
    scanner = Scanner(FINDER, windows)
    scanner.feed(gzip.compress(zstd(25, 300))[:-9])
    assert windows.left < 1 << 20


def test_a_frame_whose_head_comes_byte_by_byte() -> None:
    windows = Windows(64 << 20)
    scanner = Scanner(FINDER, windows)
    data = zstd(20, 40)
    for at in range(len(data)):
        scanner.feed(data[at : at + 1])
    assert windows.left == (63 << 20) - (1 << 19)


def test_a_capture_says_what_it_could_not_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WINDOWS", 40 << 20)
    packets = [packet for port in (7000, 7001) for packet in stream(zstd(25, 300) + bytes(200_000), port=port)]
    finding = check_capture(write(tmp_path / "x.pcap", packets), CANARIES)
    assert finding.unfollowed == 1 and not finding.complete


class Nobody:
    """A sink."""

    def add(self, data: bytes) -> None: ...
    def again(self, data: bytes) -> None: ...
    def lost(self, count: int) -> None: ...
    def close(self) -> None: ...


def test_small_segments_that_wait_take_no_more_than_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "EARLY", 1 << 20)
    early = Order(Nobody())
    early.segment(0, True, b"")
    tracemalloc.start()
    for number in range(20_000):
        early.segment(2 + 2 * number, False, b"%d" % (number % 10))
    took = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert took < 2 << 20


def test_what_is_kept_to_compare_is_bounded() -> None:
    room = Room()
    orders = [Order(Nobody(), room) for _ in range(20)]
    for each in orders:
        each.segment(0, True, b"")
        for number in range(300):
            each.segment(1 + number * 30_000, False, bytes(30_000))
        assert each._recent._size <= LAST
    assert room.last <= 1 << 24
    for each in orders:
        each.close()
    assert room == Room()


def connections(count: int, made: Callable[[int], bytes], *ends: str) -> list[Any]:
    """`count` connections one after the other, each with what is made for its caller's port."""
    found = []
    for caller in range(20_000, 20_000 + count):
        data = made(caller)
        found += stream(data, 30_000, port=49300, caller=caller)
        number = 1000 + len(data)
        if "forth" in ends:
            found.append(IP(src=A, dst=B) / TCP(sport=caller, dport=49300, seq=number, flags="FA"))
        if "back" in ends:
            found.append(IP(src=B, dst=A) / TCP(sport=49300, dport=caller, seq=499, flags="SA", ack=1000))
            found.append(IP(src=B, dst=A) / TCP(sport=49300, dport=caller, seq=500, flags="FA", ack=number + 1))
        if "reset" in ends:
            found.append(IP(src=B, dst=A) / TCP(sport=49300, dport=caller, seq=500, flags="R"))
    return found


@pytest.mark.parametrize("ends", [("forth", "back"), ("reset",)])
def test_connections_that_have_ended_take_little(
    ends: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_LINGER", 4)

    def sealed(caller: int) -> bytes:
        return PREAMBLE + b"\0\0\xea\x60" + noise(60_000, caller)

    def most(*ends: str) -> tuple[int, Finding]:
        path = write(tmp_path / "x.pcap", connections(60, sealed, *ends))
        gc.collect()
        tracemalloc.start()
        finding = check_capture(path, CANARIES)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak, finding

    (ended, finding), (running, _) = most(*ends), most()
    assert finding.complete and finding.secret and finding.sealed == {"plugin": 60 * 60_000}
    assert ended < running / 3


def test_streams_that_wait_to_be_searched_are_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "ALL_PENDING", 1 << 18)
    made: list[streams.Shared] = []
    monkeypatch.setattr(check, "Shared", lambda finder: made.append(streams.Shared(finder)) or made[-1])
    most = 0
    add = streams.Search.add

    def watched(self: streams.Search, data: bytes) -> None:
        nonlocal most
        add(self, data)
        most = max(most, made[0].pending)

    monkeypatch.setattr(streams.Search, "add", watched)
    packets = connections(20, lambda caller: noise(90_000, caller) + CANARIES[0])
    finding = check_capture(write(tmp_path / "x.pcap", packets), CANARIES)
    assert len(finding.hits) == 20 and most <= 1 << 18 and made[0].pending == 0


def test_lists_are_bounded(tmp_path: Path) -> None:
    packets = connections(1010, lambda _: PREAMBLE + bytes(4))
    finding = check_capture(write(tmp_path / "x.pcap", packets), CANARIES)
    assert len(finding.unframed) == 1000


def test_a_full_list_hides_no_canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LISTED", 3)
    packets = connections(9, lambda caller: noise(900, caller) + CANARIES[caller > 20_006])
    finding = check_capture(write(tmp_path / "x.pcap", packets), CANARIES)
    assert [hit.canary for hit in finding.hits] == [0, 0, 0, 1]
