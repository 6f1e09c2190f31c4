"""Searches one stream for canaries: its bytes, the output of every decoder that they start, and the output decoded
once more.

The strategy: a stream is fed in pieces, and the last bytes of each piece are kept, because a needle may cross the
border. Each decoder is fed with all bytes that follow until it fails or its stream ends, and its output is searched
like a stream, down to the second level. Memory does not grow with the stream; the memory of all decoders together
is limited (`DecoderMemory`), and decoders that are dropped for lack of it are counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

from lab.verify.content.canary import Finder, Needle, Sighting
from lab.verify.content.decoders import (
    DECODER_ENDS,
    HEADER,
    Decoder,
    DecoderMemory,
    Reservation,
    find_compressed,
)
from lab.verify.content.text_runs import BASE64, HEX, Alphabet, TextRuns

_LEVELS = 2  # decoders within each other, around the spellings of a canary
_MAX_ACTIVE = 16  # decoders of one stream at once; the one with the least output is dropped first
_CREDIBLE = 1 << 12  # bytes of output; a decoder with less output was probably started by chance
_FIRST = 512  # bytes that a decoder gets at first: most of those started by chance fail in them
_SLICE = 1 << 20  # bytes of a decoder's output searched at once
_ZEROS = bytes(_SLICE)


@dataclass(slots=True)
class _ActiveDecoder:
    name: str
    decoder: Decoder
    output: Scanner
    begin: int  # byte of the stream at which the compressed data begins
    reservation: Reservation


class Scanner:
    """Searches one stream. `level`: number of decoders that the stream came through. `unfollowed`: number of
    decoders that were dropped although they had credible output, or because memory was short."""

    def __init__(self, finder: Finder, memory: DecoderMemory | None = None, level: int = 0) -> None:
        self._finder = finder
        self._memory = memory or DecoderMemory()
        self._level = level
        self._tail = b""
        self._fed = 0  # bytes
        self._active: list[_ActiveDecoder] = []
        self._sightings: list[Sighting] = []
        self._text_runs: list[TextRuns] = []  # made with the first byte, because most decoders have no output
        self.unfollowed = 0

    def feed(self, data: bytes) -> list[Sighting]:
        """Search the next bytes; return the sightings that end in them."""
        if not data:
            return []
        text, kept = self._tail + data, len(self._tail)
        only_zeros = _ZEROS.startswith(data) and _ZEROS.startswith(self._tail)  # contain and start nothing
        found: dict[Needle, int] = {}
        for needle, at in () if only_zeros else self._finder.find(text, kept):
            found.setdefault(needle, at)
        for needle, at in found.items():
            self._sightings.append(Sighting(needle.canary, needle.spelling, self._fed - kept + at))
        if self._level < _LEVELS:
            self._active = [active for active in self._active if self._decode(active, data)]
            if not only_zeros:
                self._start_decoders(text, kept)
            self._text_runs = self._text_runs or [TextRuns(each, self._text_sinks(each)) for each in (BASE64, HEX)]
            for runs in self._text_runs:
                runs.feed(data)
        self._fed += len(data)
        self._tail = text[-max(self._finder.longest - 1, HEADER) :]
        sightings, self._sightings = self._sightings, []
        return sightings

    def _start_decoders(self, text: bytes, kept: int) -> None:
        """Start decoders for compressed data that begins in `text`, whose first `kept` bytes have been searched."""
        before = self._fed - kept
        for name, at, decoder in find_compressed(text, kept):
            # Bytes that a credible decoder has read are the middle of its stream and start no other one.
            if any(each.begin <= before + at and each.output._fed >= _CREDIBLE for each in self._active):
                continue
            active = _ActiveDecoder(name, decoder, self._output_scanner(), before + at, Reservation(self._memory))
            rest = at + _FIRST
            if self._decode(active, text[at:rest]) and (len(text) <= rest or self._decode(active, text[rest:])):
                self._active.append(active)
                if len(self._active) > _MAX_ACTIVE:
                    self._drop()

    def _drop(self) -> None:
        """Drop the decoder with the least output."""
        self._active.sort(key=lambda active: active.output._fed, reverse=True)
        self.unfollowed += self._active.pop().output._fed >= _CREDIBLE

    def _decode(self, active: _ActiveDecoder, data: bytes) -> bool:
        """Feed a decoder and search its output; return False once it has failed, ended, or run out of memory."""
        try:
            for piece in active.decoder.decode(data):
                self._search_output(active.name, active.output, piece)
                if not active.reservation.extend_to(active.decoder.cost):
                    self.unfollowed += 1
                    return False
        except DECODER_ENDS:
            return False
        return True

    def _output_scanner(self) -> Scanner:
        """Return a new scanner for the output of a decoder."""
        return Scanner(self._finder, self._memory, self._level + 1)

    def _text_sinks(self, alphabet: Alphabet) -> Callable[[int], Callable[[bytes], None]]:
        """Return a function that makes a receiver for the decoded text of a run."""
        # A weak reference avoids a cycle: decoders must give back their memory as soon as this scanner goes.
        scanner = weakref.proxy(self)

        def make_sink(_phase: int) -> Callable[[bytes], None]:
            output = scanner._output_scanner()
            return lambda piece: scanner._search_output(alphabet.name, output, piece)

        return make_sink

    def _search_output(self, name: str, output: Scanner, piece: bytes) -> None:
        """Search a piece of the output of the decoder `name`."""
        before = output.unfollowed
        for start in range(0, len(piece), _SLICE):
            for sighting in output.feed(piece[start : start + _SLICE]):
                plain = sighting.spelling == "raw"
                spelling = name if plain else f"{sighting.spelling} in {name}"
                self._sightings.append(sighting._replace(spelling=spelling))
        self.unfollowed += output.unfollowed - before
