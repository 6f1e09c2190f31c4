"""The memory of the check is limited, and data that does not fit is counted."""

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

from lab.verify.content import stream as streams
from lab.verify.content.canary import Finder, make_canaries, needles
from lab.verify.content.decoders import DecoderMemory
from lab.verify.content.scanner import Scanner
from lab.verify.judge import check
from lab.verify.judge.check import Finding, check_capture
from lab.verify.tcp import reassembly
from lab.verify.tcp.reassembly import Reassembler
from lab.verify.tcp.recent_bytes import RECENT_LIMIT, BufferUse
from tests.helpers.wire import PREAMBLE, A, B, noise, stream, write

CANARIES = make_canaries(2, "memory")
FINDER = Finder(needles(CANARIES))


def zstd(log: int, blocks: int) -> bytes:
    """Return the beginning of a zstd frame with a window of 2 ** `log` bytes and `blocks` times 128 KiB of
    zeros."""
    block = (131072 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd" + bytes([0, (log - 10) << 3]) + block * blocks


def test_all_decoders_share_one_memory_limit() -> None:
    memory = DecoderMemory(66 << 20)
    scanners = [Scanner(FINDER, memory) for _ in range(4)]
    for scanner in scanners:
        scanner.feed(zstd(25, 300))
    assert memory.left == 1 << 20 and [scanner.unfollowed for scanner in scanners] == [0, 0, 1, 1]
    del scanner, scanners[0]
    assert memory.left == (33 << 20) + (1 << 19)  # at once, not at the next garbage collection
    scanners[1].feed(zstd(25, 300))
    assert scanners[1].unfollowed == 1 and memory.left <= 1 << 20


def test_small_windows_and_failed_decoders_use_little_memory() -> None:
    memory = DecoderMemory(64 << 20)
    scanner = Scanner(FINDER, memory)
    scanner.feed(noise(1 << 20) + zstd(11, 600))
    assert memory.left > 63 << 20 and scanner.unfollowed == 0
    scanner.feed(noise(1 << 20))
    assert memory.left == 64 << 20


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_other_kinds_of_decoders_use_memory(pack: Any) -> None:
    memory = DecoderMemory(20 << 20)
    scanner = Scanner(FINDER, memory)
    scanner.feed(pack(bytes(30 << 20) + noise(9))[:-30])
    assert scanner.unfollowed == (1 if pack is lzma.compress else 0)
    assert memory.left < 20 << 20 or scanner.unfollowed


def test_decoders_within_decoders_use_memory() -> None:
    memory = DecoderMemory(33 << 20)
    scanner = Scanner(FINDER, memory)
    scanner.feed(gzip.compress(zstd(25, 300))[:-9])
    assert memory.left < 1 << 20


def test_a_zstd_header_that_comes_byte_by_byte() -> None:
    memory = DecoderMemory(64 << 20)
    scanner = Scanner(FINDER, memory)
    data = zstd(20, 40)
    for at in range(len(data)):
        scanner.feed(data[at : at + 1])
    assert memory.left == (63 << 20) - (1 << 19)


def test_streams_that_could_not_be_decoded_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "DECODER_MEMORY", 40 << 20)
    packets = [packet for port in (7000, 7001) for packet in stream(zstd(25, 300) + bytes(200_000), port=port)]
    finding = check_capture(write(tmp_path / "x.pcap", packets), CANARIES)
    assert finding.unfollowed == 1 and not finding.complete


class IgnoringSink:
    """A sink that ignores the stream."""

    def add(self, data: bytes) -> None: ...
    def add_extra(self, data: bytes) -> None: ...
    def skip(self, count: int) -> None: ...
    def close(self) -> None: ...


def test_many_small_early_segments_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reassembly, "EARLY_LIMIT", 1 << 20)
    early = Reassembler(IgnoringSink())
    early.segment(0, True, b"")
    tracemalloc.start()
    for number in range(20_000):
        early.segment(2 + 2 * number, False, b"%d" % (number % 10))
    took = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert took < 2 << 20


def test_recent_bytes_are_limited() -> None:
    use = BufferUse()
    reassemblers = [Reassembler(IgnoringSink(), use) for _ in range(20)]
    for each in reassemblers:
        each.segment(0, True, b"")
        for number in range(300):
            each.segment(1 + number * 30_000, False, bytes(30_000))
        assert each._recent._size <= RECENT_LIMIT
    assert use.recent <= 1 << 24
    for each in reassemblers:
        each.close()
    assert use == BufferUse()


def connections(count: int, make: Callable[[int], bytes], *ends: str) -> list[Any]:
    """Return the packets of `count` successive connections; `make(port)` returns the data of the one from that
    port."""
    packets = []
    for caller in range(20_000, 20_000 + count):
        data = make(caller)
        packets += stream(data, 30_000, port=49300, caller=caller)
        number = 1000 + len(data)
        if "forth" in ends:
            packets.append(IP(src=A, dst=B) / TCP(sport=caller, dport=49300, seq=number, flags="FA"))
        if "back" in ends:
            packets.append(IP(src=B, dst=A) / TCP(sport=49300, dport=caller, seq=499, flags="SA", ack=1000))
            packets.append(IP(src=B, dst=A) / TCP(sport=49300, dport=caller, seq=500, flags="FA", ack=number + 1))
        if "reset" in ends:
            packets.append(IP(src=B, dst=A) / TCP(sport=49300, dport=caller, seq=500, flags="R"))
    return packets


@pytest.mark.parametrize("ends", [("forth", "back"), ("reset",)])
def test_ended_connections_use_little_memory(
    ends: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_ENDED_KEPT", 4)

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


def test_bytes_that_wait_for_the_search_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ALL_PENDING", 1 << 18)
    made: list[streams.CaptureContent] = []

    def make(*words: Any) -> streams.CaptureContent:
        made.append(streams.CaptureContent(*words))
        return made[-1]

    monkeypatch.setattr(check, "CaptureContent", make)
    most = 0
    add = streams.CanarySearch.add

    def watched(self: streams.CanarySearch, data: bytes) -> None:
        nonlocal most
        add(self, data)
        most = max(most, made[0].pending)

    monkeypatch.setattr(streams.CanarySearch, "add", watched)
    packets = connections(20, lambda caller: noise(90_000, caller) + CANARIES[0])
    finding = check_capture(write(tmp_path / "x.pcap", packets), CANARIES)
    assert len(finding.hits) == 20 and most <= 1 << 18 and made[0].pending == 0


def test_lists_are_limited(tmp_path: Path) -> None:
    packets = connections(1010, lambda _: PREAMBLE + bytes(4))
    finding = check_capture(write(tmp_path / "x.pcap", packets), CANARIES)
    assert len(finding.unframed) == 1000


def test_a_full_list_hides_no_canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LIST_LIMIT", 3)
    packets = connections(9, lambda caller: noise(900, caller) + CANARIES[caller > 20_006])
    finding = check_capture(write(tmp_path / "x.pcap", packets), CANARIES)
    assert [hit.canary for hit in finding.hits] == [0, 0, 0, 1]
