"""Canaries: texts that are planted where secrets would be, and the search for them in every spelling at once.

The strategy: each canary is written in every spelling that a careless program might use (unchanged, UTF-16, hex,
base64 at each of its three alignments, a deflate block with fixed codes at each of its eight, and one of these
within another), and each spelling is cut into two halves, the needles. A header or a line break can fall into one
half but not into both. The search reads four bytes at every fourth position only, and a table says whether any
needle contains them; so its time does not grow with the number of needles.
"""

from __future__ import annotations

import base64
import hashlib
import string
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy

SHORTEST = 16  # bytes of a canary; a shorter one could occur in noise by chance
_ALPHABET = (string.ascii_letters + string.digits).encode()
_WORD = 4  # bytes compared at once; a needle has 2 * _WORD - 1 or more, so it contains an aligned word
_TABLE_BITS = 18
_MIX = 2654435761  # Knuth's multiplier, for a hash of 32 bits


class Needle(NamedTuple):
    """One half of canary number `canary` in one spelling."""

    canary: int
    spelling: str
    text: bytes


class Sighting(NamedTuple):
    """A needle that was found, at byte `offset` of the stream (of the decoder's output if `spelling` names a
    decoder)."""

    canary: int
    spelling: str
    offset: int


def make_canaries(count: int, seed: str, length: int = 48) -> list[bytes]:
    """Return `count` texts of `length` letters and digits that look random, always the same for the same `seed`."""
    canaries = []
    for number in range(count):
        random = hashlib.shake_256(f"{seed}/{number}".encode()).digest(length)
        canaries.append(bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in random))
    return canaries


def _base64(text: bytes) -> Iterator[bytes]:
    """Yield, for each of the three alignments, the characters that depend on `text` alone; also for base64url."""
    for lead in range(3):
        whole = base64.b64encode(b"\0" * lead + text)
        part = whole[-(-lead * 8 // 6) : (lead + len(text)) * 8 // 6]
        yield part
        yield part.translate(bytes.maketrans(b"+/", b"-_"))


def _spell(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, spelling) for each textual encoding of `text`. UTF-16 lacks its last zero byte, so that it is
    found in both byte orders."""
    yield "utf-16", text.decode("latin-1").encode("utf-16-le")[:-1]
    yield "hex", text.hex().encode()
    yield "hex", text.hex().upper().encode()
    for part in _base64(text):
        yield "base64", part


def _fixed_deflate(text: bytes) -> Iterator[bytes]:
    """Yield `text` as literals of a deflate block with fixed codes (RFC 1951, section 3.2.6), for each of the eight
    bits at which it may begin, without the incomplete bytes at both ends. Yields nothing if `text` has a byte of
    144 or more, whose code is longer."""
    if max(text) >= 144:
        return
    codes = bytes(int(f"{0x30 + byte:08b}"[::-1], 2) for byte in text)
    yield codes
    number = int.from_bytes(codes, "little")
    for shift in range(1, 8):
        yield (number << shift).to_bytes(len(codes) + 1, "little")[1:-1]


def _spellings(canary: bytes) -> dict[bytes, str]:
    """Return each spelling with its name; of equal spellings the simplest name."""
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
    """Return the needles for `canaries`. Raises ValueError if a canary is shorter than SHORTEST."""
    found: list[Needle] = []
    for number, canary in enumerate(canaries):
        if len(canary) < SHORTEST:
            raise ValueError(f"a canary needs {SHORTEST} bytes or more, this one has {len(canary)}")
        for text, name in _spellings(canary).items():
            middle = len(text) // 4 * 2  # even: hex and UTF-16 characters stay whole
            found += [Needle(number, name, text[:middle]), Needle(number, name, text[middle:])]
    return found


class Finder:
    """Finds all needles in one pass. It has no state of a stream, so that all streams share it."""

    def __init__(self, searched: list[Needle]) -> None:
        import numpy

        self.longest = max((len(needle.text) for needle in searched), default=1)
        self._places: dict[int, list[tuple[Needle, int]]] = {}  # word -> needles with it, and its offset
        for needle in searched:
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
        """Yield each needle in `text` that ends after byte `start`, with the offset at which it begins."""
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
