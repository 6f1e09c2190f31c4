"""Searches one stream: as it is, through every decoder that its bytes start, and what these give once more.

The strategy: a stream is fed in pieces; the last bytes of a piece are kept for what lies across the border.
Decoders that fail go, those that go on are fed with all that follows, and their output is a stream, too, down to
the second level. Memory is bounded however long the stream is, and that of all decoders together (`Windows`); what
cannot be followed for that is counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

from lab.verify.content.canary import Finder, Needle, Sighting
from lab.verify.content.decoders import HEADER, NO_SUCH_STREAM, Decoder, Share, Windows, beginnings
from lab.verify.content.text_runs import BASE64, HEX, Alphabet, Runs

_LEVELS = 2  # of encodings, around the canary's own spelling
_MAX_LIVE = 16  # decoders followed at once in one stream; the least fruitful is dropped first
_FRUITFUL = 1 << 12  # bytes of output; what gave less and is dropped was chance
_FIRST = 512  # bytes that a decoder gets at first: chance finds fail in them
_SLICE = 1 << 20  # bytes of a decoder's output searched at once
_ZEROS = bytes(_SLICE)


@dataclass(slots=True)
class _Followed:
    name: str
    decoder: Decoder
    inside: Scanner
    begin: int  # in bytes of the stream
    share: Share


class Scanner:
    """Searches one stream. `level`: how many decoders it came through; `unfollowed`: decoders that were dropped
    though they gave something, or for which there was no room."""

    def __init__(self, finder: Finder, windows: Windows | None = None, level: int = 0) -> None:
        self._finder = finder
        self._windows = windows or Windows()
        self._level = level
        self._tail = b""
        self._seen = 0  # bytes fed so far
        self._live: list[_Followed] = []
        self._sightings: list[Sighting] = []
        self._texts: list[Runs] = []  # made with the first byte: most decoders give none
        self.unfollowed = 0

    def feed(self, data: bytes) -> list[Sighting]:
        """What is seen of the canaries in `data` and what came before it."""
        if not data:
            return []
        text, kept = self._tail + data, len(self._tail)
        dull = _ZEROS.startswith(data) and _ZEROS.startswith(self._tail)  # nothing is in there, nothing begins
        found: dict[Needle, int] = {}
        for needle, at in () if dull else self._finder.find(text, kept):
            found.setdefault(needle, at)
        for needle, at in found.items():
            self._sightings.append(Sighting(needle.canary, needle.spelling, self._seen - kept + at))
        if self._level < _LEVELS:
            self._live = [followed for followed in self._live if self._follow(followed, data)]
            if not dull:
                self._begin(text, kept)
            self._texts = self._texts or [Runs(each, self._text(each)) for each in (BASE64, HEX)]
            for runs in self._texts:
                runs.feed(data)
        self._seen += len(data)
        self._tail = text[-max(self._finder.longest - 1, HEADER) :]
        sightings, self._sightings = self._sightings, []
        return sightings

    def _begin(self, text: bytes, kept: int) -> None:
        """Start decoders for what begins in `text`."""
        before = self._seen - kept
        for name, at, decoder in beginnings(text, kept):
            # What one that is still at work has read is explained: it is the middle of a stream.
            if any(each.begin <= before + at and each.inside._seen >= _FRUITFUL for each in self._live):
                continue
            followed = _Followed(name, decoder, self._inside(), before + at, Share(self._windows))
            rest = at + _FIRST
            if self._follow(followed, text[at:rest]) and (len(text) <= rest or self._follow(followed, text[rest:])):
                self._live.append(followed)
                if len(self._live) > _MAX_LIVE:
                    self._drop()

    def _drop(self) -> None:
        self._live.sort(key=lambda followed: followed.inside._seen, reverse=True)
        self.unfollowed += self._live.pop().inside._seen >= _FRUITFUL

    def _follow(self, followed: _Followed, data: bytes) -> bool:
        """Feed a decoder and search its output; False once it has failed or come to its end."""
        try:
            for piece in followed.decoder.decode(data):
                self._note(followed.name, followed.inside, piece)
                if not followed.share.suffices(followed.decoder.cost):
                    self.unfollowed += 1
                    return False
        except NO_SUCH_STREAM:
            return False
        return True

    def _inside(self) -> Scanner:
        """For what a decoder gives."""
        return Scanner(self._finder, self._windows, self._level + 1)

    def _text(self, alphabet: Alphabet) -> Callable[[int], Callable[[bytes], None]]:
        whole = weakref.proxy(self)  # which has them: with it all decoders go, and at once

        def sink(_phase: int) -> Callable[[bytes], None]:
            inside = whole._inside()
            return lambda piece: whole._note(alphabet.name, inside, piece)

        return sink

    def _note(self, name: str, inside: Scanner, piece: bytes) -> None:
        """What is seen in `piece` of the output of a decoder `name`."""
        before = inside.unfollowed
        for start in range(0, len(piece), _SLICE):
            for sighting in inside.feed(piece[start : start + _SLICE]):
                plain = sighting.spelling == "raw"
                spelling = name if plain else f"{sighting.spelling} in {name}"
                self._sightings.append(sighting._replace(spelling=spelling))
        self.unfollowed += inside.unfollowed - before
