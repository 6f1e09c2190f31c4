"""Properties of the search for canaries and of TCP reassembly, for random input."""

from __future__ import annotations

import base64
import bz2
import gzip
import lzma
import random
import zlib
from collections.abc import Callable
from functools import partial

import pytest

pytest.importorskip("numpy", reason="numpy is not installed")

import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lab.verify.content.canary import Finder, make_canaries, needles
from lab.verify.content.scanner import Scanner
from lab.verify.tcp.reassembly import Reassembler
from lab.verify.tcp.recent_bytes import BufferUse

CANARIES = make_canaries(3, "property")
FINDER = Finder(needles(CANARIES))
TEXT = "".join(f"{number} green bottles, hanging on the wall; " for number in range(99)).encode()


def raw_deflate(data: bytes, level: int = 6) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


TEXTUAL: dict[str, Callable[[bytes], bytes]] = {
    "utf-16 le": lambda data: data.decode("latin-1").encode("utf-16-le"),
    "utf-16 be": lambda data: data.decode("latin-1").encode("utf-16-be"),
    "hex": lambda data: data.hex().encode(),
    "HEX": lambda data: data.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64 + 1": lambda data: base64.b64encode(b"?" + data),
    "base64 + 2": lambda data: base64.b64encode(b"??" + data),
    "base64 for urls": base64.urlsafe_b64encode,
    "base64 in lines": base64.encodebytes,
}
PACKED: dict[str, Callable[[bytes], bytes]] = {
    **{f"zlib {level}": partial(zlib.compress, level=level) for level in range(10)},
    "gzip": gzip.compress,
    # With text around the canary, as in a file: a compressor would write a few words alone with fixed codes.
    "deflate": lambda data: raw_deflate(TEXT + data + TEXT[::-1]),
    "deflate after a stored block": lambda data: raw_deflate(bytes(9), 0)[:-3] + raw_deflate(TEXT + data + TEXT),
    **{f"zstd {level}": zstandard.ZstdCompressor(level=level).compress for level in (-7, -1, 1, 3, 9, 19)},
    "zstd without size": lambda data: zstandard.ZstdCompressor(write_content_size=False).compress(data),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
# Compressed data is never written as UTF-16.
PAIRS = [
    (outer, inner)
    for outer in TEXTUAL | PACKED
    for inner in TEXTUAL | PACKED
    if not (outer.startswith("utf-16") and inner in PACKED)
]


@settings(max_examples=300)
@given(
    pair=st.sampled_from(PAIRS),
    canary=st.integers(0, 2),
    lead=st.integers(0, 5000),
    pieces=st.lists(st.integers(1, 3000), min_size=1, max_size=5),
    seed=st.integers(0, 9),
)
def test_a_canary_is_found_in_every_encoding_of_every_encoding(
    pair: tuple[str, str], canary: int, lead: int, pieces: list[int], seed: int
) -> None:
    every = TEXTUAL | PACKED
    outer, inner = pair
    noise = random.Random(seed)
    data = noise.randbytes(lead) + every[outer](every[inner](CANARIES[canary])) + noise.randbytes(200)
    scanner, seen, at, turn = Scanner(FINDER), set(), 0, 0
    while at < len(data):
        piece = data[at : at + pieces[turn % len(pieces)]]
        seen |= {sighting.canary for sighting in scanner.feed(piece)}
        at, turn = at + len(piece), turn + 1
    assert seen == {canary}


NAMED = st.sampled_from(["zlib 6", "gzip", "zstd 3", "zstd without size", "bzip2", "xz"])


@settings(max_examples=200)
@given(first=NAMED, second=NAMED, border=st.integers(-50, 300), late=st.integers(0, 50))
@example("zstd 3", "zstd 3", 4, 0)
@example("zstd 3", "gzip", 200, 30)
def test_a_compressed_stream_right_after_another_is_found(first: str, second: str, border: int, late: int) -> None:
    """A piece ends at any offset around the end of the first stream."""
    noise = random.Random(late)
    before = PACKED[first](noise.randbytes(20_000))  # enough output to be credible
    behind = PACKED[second](TEXT + CANARIES[1] + TEXT[::-1])
    data = noise.randbytes(700) + before + noise.randbytes(late) + behind + noise.randbytes(900)
    scanner, seen, end = Scanner(FINDER), set(), 700 + len(before)
    for begin, cut in ((0, 5000), (5000, end + border), (end + border, len(data))):
        seen |= {(sighting.canary, sighting.spelling) for sighting in scanner.feed(data[begin:cut])}
    assert (1, second.split()[0]) in seen


@settings(max_examples=60)
@given(data=st.binary(max_size=3000), pieces=st.integers(1, 500))
def test_no_canary_is_found_in_random_bytes(data: bytes, pieces: int) -> None:
    scanner = Scanner(FINDER)
    for at in range(0, len(data), pieces):
        assert scanner.feed(data[at : at + pieces]) == []


class KeepingSink:
    """A sink that keeps the bytes of the stream, and refuses holes and extra bytes."""

    def __init__(self) -> None:
        self.data = b""

    def add(self, data: bytes) -> None:
        self.data += data

    def add_extra(self, data: bytes) -> None:
        raise AssertionError("no retransmission differs")

    def skip(self, count: int) -> None:
        raise AssertionError("nothing is missing")

    def close(self) -> None:
        pass


@settings(max_examples=200)
@given(
    cuts=st.lists(st.integers(1, 90), min_size=1, max_size=40),
    start=st.sampled_from([0, 1, 1000, 2**31 - 50, 2**31, 2**32 - 700, 2**32 - 1]),
    seen_syn=st.booleans(),
    again=st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 300)), max_size=10),
    seed=st.integers(0, 99),
)
def test_segments_in_any_order_give_the_stream(
    cuts: list[int], start: int, seen_syn: bool, again: list[tuple[int, int]], seed: int
) -> None:
    """Segments of any size come in any order, and some bytes again in other segments."""
    chance = random.Random(seed)
    data = chance.randbytes(sum(cuts))
    segments, at = [], 0
    for cut in cuts:
        segments.append((at, data[at : at + cut]))
        at += cut
    first = [] if seen_syn else [segments.pop(0)]
    extra = [(place, data[place : place + count]) for place, count in again if place < len(data)]
    segments += extra
    chance.shuffle(segments)
    sink, use = KeepingSink(), BufferUse()
    reassembler = Reassembler(sink, use)
    if seen_syn:
        reassembler.segment((start - 1) % 2**32, True, b"")
    for place, segment in [*first, *segments]:
        reassembler.segment((start + place) % 2**32, False, segment)
        if seen_syn:
            reassembler.segment((start - 1) % 2**32, True, b"")  # a repeated SYN changes nothing
    reassembler.close()
    assert sink.data == data
    assert reassembler.missing == reassembler.altered == reassembler.unplaced == 0 and use == BufferUse()
    assert reassembler.repeated == sum(len(segment) for _, segment in extra)
