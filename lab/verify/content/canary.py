"""Canaries: text that is planted where a secret would be, and the search for it in every spelling at once.

The strategy: a canary is cut in two halves and each half is written in every spelling that a careless program might
use: as it is, UTF-16, hex, base64 at each of its three alignments, a deflate block with fixed codes at each of its
eight, and two of these around each other. Halves, because a header or a line break may fall into one of them, never
into both. The time does not grow with the number of spellings: four bytes are looked at at every fourth place only,
and a table says whether some needle has them somewhere.
"""

from __future__ import annotations

import base64
import hashlib
import string
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy

SHORTEST = 16  # bytes of a canary; less cannot be told from noise
_ALPHABET = (string.ascii_letters + string.digits).encode()
_WORD = 4  # bytes looked at at once; a needle has 2 * _WORD - 1 or more
_TABLE_BITS = 18
_MIX = 2654435761  # Knuth's, for a hash of 32 bits


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


def _base64(text: bytes) -> Iterator[bytes]:
    """The characters that stand for `text` alone, for each of the three places it may begin at."""
    for lead in range(3):
        whole = base64.b64encode(b"\0" * lead + text)
        part = whole[-(-lead * 8 // 6) : (lead + len(text)) * 8 // 6]
        yield part
        yield part.translate(bytes.maketrans(b"+/", b"-_"))


def _spell(text: bytes) -> Iterator[tuple[str, bytes]]:
    """`text` as other text. UTF-16 without its last zero byte: so it is found in both byte orders."""
    yield "utf-16", text.decode("latin-1").encode("utf-16-le")[:-1]
    yield "hex", text.hex().encode()
    yield "hex", text.hex().upper().encode()
    for part in _base64(text):
        yield "base64", part


def _fixed_deflate(text: bytes) -> Iterator[bytes]:
    """`text` as literals of a deflate block with fixed codes (RFC 1951, section 3.2.6), whole bytes only, from each
    of the eight bits it may begin at. Longer codes, from byte 144 on, are left out."""
    if max(text) >= 144:
        return
    codes = bytes(int(f"{0x30 + byte:08b}"[::-1], 2) for byte in text)
    yield codes
    number = int.from_bytes(codes, "little")
    for shift in range(1, 8):
        yield (number << shift).to_bytes(len(codes) + 1, "little")[1:-1]


def _spellings(canary: bytes) -> dict[bytes, str]:
    """Every spelling and its name; of those that look the same, the simplest."""
    found = {canary: "raw"}
    once = list(_spell(canary))
    for name, text in once:
        found.setdefault(text, name)
    for name, text in once:
        for outer, spelled in _spell(text):
            found.setdefault(spelled, f"{name} in {outer}")
    for text in _fixed_deflate(canary):
        found.setdefault(text, "deflate")
    return found


def needles(canaries: list[bytes]) -> list[Needle]:
    """Everything that `canaries` are searched by. ValueError if one is too short to be told from noise."""
    found: list[Needle] = []
    for number, canary in enumerate(canaries):
        if len(canary) < SHORTEST:
            raise ValueError(f"a canary needs {SHORTEST} bytes or more, this one has {len(canary)}")
        for text, name in _spellings(canary).items():
            middle = len(text) // 4 * 2  # even: hex and UTF-16 characters stay whole
            found += [Needle(number, name, text[:middle]), Needle(number, name, text[middle:])]
    return found


class Finder:
    """Finds all of some needles in one pass. Shared by all streams: it keeps nothing of them."""

    def __init__(self, wanted: list[Needle]) -> None:
        import numpy

        self.longest = max((len(needle.text) for needle in wanted), default=1)
        self._places: dict[int, list[tuple[Needle, int]]] = {}  # word -> the needles that have it, and where
        for needle in wanted:
            for at in range(_WORD):
                word = int.from_bytes(needle.text[at : at + _WORD], "little")
                self._places.setdefault(word, []).append((needle, at))
        self._words = numpy.array(sorted(self._places), numpy.uint32)
        self._table = numpy.zeros(1 << _TABLE_BITS, bool)
        self._table[self._hash(self._words)] = True

    @staticmethod
    def _hash(words: numpy.ndarray) -> numpy.ndarray:  # type: ignore[type-arg, unused-ignore]
        import numpy

        return (words * numpy.uint32(_MIX)) >> numpy.uint32(32 - _TABLE_BITS)

    def find(self, text: bytes, start: int = 0) -> Iterator[tuple[Needle, int]]:
        """Needles in `text` that end behind `start`, and where they begin."""
        import numpy

        words = numpy.frombuffer(text, "<u4", len(text) // _WORD)
        likely = numpy.flatnonzero(self._table[self._hash(words)])
        place = numpy.searchsorted(self._words, words[likely])
        likely = likely[self._words[numpy.minimum(place, len(self._words) - 1)] == words[likely]]
        for at, word in zip((likely * _WORD).tolist(), words[likely].tolist(), strict=True):
            for needle, offset in self._places[word]:
                begin = at - offset
                if begin + len(needle.text) > start and begin >= 0 and text.startswith(needle.text, begin):
                    yield needle, begin
