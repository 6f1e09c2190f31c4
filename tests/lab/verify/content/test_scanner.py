"""The search finds canaries in every spelling, across the borders of pieces, and none in noise."""

from __future__ import annotations

import base64
import bz2
import gzip
import lzma
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard

from lab.verify.content.canary import Finder, make_canaries, needles
from lab.verify.content.scanner import Scanner
from tests.helpers.wire import noise

CANARIES = make_canaries(3, "test")
SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda text: text,
    "utf-16": lambda text: text.decode().encode("utf-16-le"),
    "hex": lambda text: text.hex().encode(),
    "hex upper": lambda text: text.hex().upper().encode(),
    "base64 at 0": lambda text: base64.b64encode(text),
    "base64 at 1": lambda text: base64.b64encode(b"x" + text),
    "base64 at 2": lambda text: base64.b64encode(b"xy" + text),
    "base64 in lines": lambda text: base64.encodebytes(b"x" * 31 + text + b"y" * 40),
    "base64 for urls": lambda text: base64.urlsafe_b64encode(text),
    "zlib": lambda text: zlib.compress(b"before " * 40 + text + b" after" * 40),
    "zlib fast": lambda text: zlib.compress(text, 1),
    "gzip": lambda text: gzip.compress(b"before" + text),
    "zstd": lambda text: zstandard.ZstdCompressor().compress(b"before" + text),
    "xz": lambda text: lzma.compress(text),
    "bzip2": lambda text: bz2.compress(text),
    "hex in gzip": lambda text: gzip.compress(text.hex().encode()),
}


def see(data: bytes, piece: int) -> set[tuple[int, str]]:
    scanner = Scanner(Finder(needles(CANARIES)))
    seen = set()
    for start in range(0, len(data), piece):
        seen |= {(s.canary, s.spelling) for s in scanner.feed(data[start : start + piece])}
    return seen


@pytest.mark.parametrize("piece", [1, 7, 100, 1 << 20])
@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_found_in_any_pieces(name: str, piece: int) -> None:
    data = noise(501) + SPELLINGS[name](CANARIES[1]) + noise(502, 2)
    expected = name if " in gzip" in name else name.split()[0]
    assert (1, expected) in see(data, piece)


def test_half_a_canary_is_found() -> None:
    assert see(noise(99) + CANARIES[0][:24] + noise(99), 64) == {(0, "raw")}
    assert see(noise(99) + CANARIES[0][24:] + noise(99), 64) == {(0, "raw")}


def test_nothing_is_found_in_noise() -> None:
    assert see(noise(4 << 20), 1 << 18) == set()


def test_a_compressed_stream_is_decoded_to_its_end() -> None:
    words = [f"{n} bottles\n".encode() for n in range(200_000)]
    words.insert(-5, CANARIES[2])
    assert see(noise(77) + gzip.compress(b"".join(words)), 1 << 16) == {(2, "gzip")}


def test_the_offset_counts_from_the_beginning_of_the_stream() -> None:
    scanner = Scanner(Finder(needles(CANARIES)))
    scanner.feed(noise(1000))
    assert scanner.feed(noise(234) + CANARIES[0])[0].offset == 1234


def test_a_decompression_bomb_is_decoded_within_limited_memory() -> None:
    zstd = zstandard.ZstdCompressor().compress(bytes(200 << 20) + CANARIES[0])
    bombs = zlib.compress(bytes(200 << 20)) + zstd
    scanner = Scanner(Finder(needles(CANARIES[:1])))
    tracemalloc.start()
    seen = scanner.feed(bombs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "zstd" in {s.spelling for s in seen}
    assert peak < 150 << 20


def test_canaries_are_reproducible_and_different() -> None:
    assert make_canaries(2, "seed") == make_canaries(2, "seed")
    assert len(set(make_canaries(20, "seed") + make_canaries(20, "other"))) == 40
    assert all(len(canary) == 48 and canary.isalnum() for canary in CANARIES)


def test_a_short_canary_is_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        needles([b"short"])
