"""Canaries: text that is planted where a secret would be, and the search for it in a stream of bytes.

The strategy: a canary is cut in two halves and each half is written in every spelling that a careless
program might use (as it is, UTF-16, hex, base64 at each of its three alignments). Halves, because a header
or a line break may fall into one of them, never into both. Compressed bytes have no spelling: wherever the
magic of a compressed format stands a decoder is started and fed with all that follows, until it fails; what
it gives is searched as well. Memory is bounded however long the stream is: only the last bytes are kept.
"""

from __future__ import annotations

import base64
import bz2
import hashlib
import lzma
import string
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import zstandard

_ALPHABET = (string.ascii_letters + string.digits).encode()
_OUTPUT = 1 << 20  # bytes that a decoder may give at once
_WINDOW = 1 << 27  # the largest zstd window that is followed, bytes
_MAX_LIVE = 24  # decoders followed at once in one stream; the least fruitful is dropped first


class Needle(NamedTuple):
    """One half of canary number `canary` in one spelling."""

    canary: int
    spelling: str
    text: bytes


class Sighting(NamedTuple):
    """A needle found: `offset` is in bytes of the stream (of the decoder's output if `spelling` says so)."""

    canary: int
    spelling: str
    offset: int


def make_canaries(count: int, seed: str, length: int = 48) -> list[bytes]:
    """`count` texts of `length` letters and digits, the same for the same `seed`, that look random."""
    canaries = []
    for number in range(count):
        noise = hashlib.shake_256(f"{seed}/{number}".encode()).digest(length)
        canaries.append(bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in noise))
    return canaries


def _base64_spellings(canary: bytes) -> set[bytes]:
    """The characters that stand for `canary` alone, for each of the three places it may begin at."""
    spellings = set()
    for lead in range(3):
        text = base64.b64encode(b"\0" * lead + canary)
        first = -(-lead * 8 // 6)
        last = (lead + len(canary)) * 8 // 6
        spellings.add(text[first:last])
        spellings.add(text[first:last].translate(bytes.maketrans(b"+/", b"-_")))
    return spellings


def needles(canaries: list[bytes]) -> list[Needle]:
    """Everything that `canaries` are searched by. ValueError if one is too short to be told from noise."""
    found: list[Needle] = []
    for number, canary in enumerate(canaries):
        if len(canary) < 16:
            raise ValueError(f"a canary needs 16 bytes or more, this one has {len(canary)}")
        spellings: list[tuple[str, bytes]] = [
            ("raw", canary),
            ("utf-16", canary.decode("latin-1").encode("utf-16-le")),
            ("hex", canary.hex().encode()),
            ("hex", canary.hex().upper().encode()),
        ]
        spellings += [("base64", text) for text in sorted(_base64_spellings(canary))]
        for spelling, text in spellings:
            middle = len(text) // 4 * 2  # even: hex and UTF-16 characters stay whole
            found += [Needle(number, spelling, text[:middle]), Needle(number, spelling, text[middle:])]
    return found


class _Raw:
    """Searches one stream for all needles, across the borders of the pieces it is fed with."""

    def __init__(self, wanted: list[Needle]) -> None:
        self._wanted = wanted
        self._keep = max((len(needle.text) for needle in wanted), default=1) - 1
        self.tail = b""
        self.seen = 0  # bytes fed so far

    def feed(self, data: bytes) -> tuple[bytes, int, list[Sighting]]:
        """The bytes searched (what was kept, then `data`), how many were kept, and what was found."""
        kept = len(self.tail)
        text = self.tail + data
        sightings = []
        for needle in self._wanted:
            at = text.find(needle.text, max(0, kept - len(needle.text) + 1))
            if at >= 0:
                sightings.append(Sighting(needle.canary, needle.spelling, self.seen - kept + at))
        self.seen += len(data)
        self.tail = text[-self._keep :] if self._keep else b""
        return text, kept, sightings


class _Decoder(Protocol):
    def decode(self, data: bytes) -> Iterator[bytes]:
        """Pieces of the output; any exception means that this was no such stream; stops at its end."""
        ...


class _Zlib:
    """zlib and gzip; a bomb gives its output in pieces."""

    def __init__(self, wbits: int) -> None:
        self._object = zlib.decompressobj(wbits)

    def decode(self, data: bytes) -> Iterator[bytes]:
        while data and not self._object.eof:
            yield self._object.decompress(data, _OUTPUT)
            data = self._object.unconsumed_tail
        if self._object.eof:
            raise EOFError


class _Slices:
    """bz2 and xz, whose `decompress` takes a limit and keeps what it did not use."""

    def __init__(self, decompressor: Any) -> None:
        self._object = decompressor

    def decode(self, data: bytes) -> Iterator[bytes]:
        yield self._object.decompress(data, _OUTPUT)
        while not self._object.needs_input and not self._object.eof:
            yield self._object.decompress(b"", _OUTPUT)
        if self._object.eof:
            raise EOFError


class _Zstd:
    """zstd has no limit on its output, so it is fed in small slices."""

    def __init__(self) -> None:
        self._object = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()

    def decode(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), 2048):
            if self._object.eof:
                raise EOFError
            yield self._object.decompress(data[start : start + 2048])


_FORMATS: list[tuple[str, bytes, Callable[[], _Decoder]]] = [
    *(("zlib", b"\x78" + level, lambda: _Zlib(15)) for level in (b"\x01", b"\x5e", b"\x9c", b"\xda")),
    ("gzip", b"\x1f\x8b\x08", lambda: _Zlib(31)),
    ("zstd", b"\x28\xb5\x2f\xfd", _Zstd),
    ("xz", b"\xfd7zXZ\0", lambda: _Slices(lzma.LZMADecompressor(memlimit=1 << 28))),
    ("bzip2", b"BZh", lambda: _Slices(bz2.BZ2Decompressor())),
]


# bz2 fails with OSError and ValueError; EOFError is an orderly end.
_NO_SUCH_STREAM = (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, ValueError, EOFError)


@dataclass(slots=True)
class _Followed:
    name: str
    decoder: _Decoder
    search: _Raw


class Scanner:
    """Searches one stream, as it is and through every decoder that its bytes start."""

    def __init__(self, wanted: list[Needle]) -> None:
        self._wanted = wanted
        self._raw = _Raw(wanted)
        self._live: list[_Followed] = []

    def feed(self, data: bytes) -> list[Sighting]:
        """What is seen of the canaries in `data` and what came before it."""
        text, kept, sightings = self._raw.feed(data)
        survivors = []
        for followed in self._live:
            if self._follow(followed, data, sightings):
                survivors.append(followed)
        for name, magic, start in _FORMATS:
            at = text.find(magic, max(0, kept - len(magic) + 1))
            while at >= 0:
                followed = _Followed(name, start(), _Raw(self._wanted))
                # Chance finds fail within a few bytes: do not copy the rest of the text for each of them.
                if self._follow(followed, text[at : at + 512], sightings) and (
                    len(text) <= at + 512 or self._follow(followed, text[at + 512 :], sightings)
                ):
                    survivors.append(followed)
                at = text.find(magic, at + 1)
        survivors.sort(key=lambda followed: followed.search.seen, reverse=True)
        self._live = survivors[:_MAX_LIVE]
        return sightings

    def _follow(self, followed: _Followed, data: bytes, sightings: list[Sighting]) -> bool:
        """Feed a decoder and search its output; False once it has failed or come to its end."""
        try:
            for piece in followed.decoder.decode(data):
                _, _, seen = followed.search.feed(piece)
                for sighting in seen:
                    plain = sighting.spelling == "raw"
                    spelling = followed.name if plain else f"{sighting.spelling} in {followed.name}"
                    sightings.append(sighting._replace(spelling=spelling))
        except _NO_SUCH_STREAM:
            return False
        return True
