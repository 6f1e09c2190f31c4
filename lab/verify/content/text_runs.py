"""Finds and decodes runs of base64 or hex in a stream, piece by piece: compressed data may have been written as
text.

The strategy: numpy tests sixteen bytes at a time whether all are of the alphabet (or line ends), which noise never
is; only there the runs are cut out. At which character of a group the text began is unknown, so each run is decoded
from every possible one (phase), each phase into a stream of its own.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable

SHORTEST = 40  # characters: a shorter run cannot contain anything compressed
_BLOCK = 16
_LINE_ENDS = b"\r\n"
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")


class Alphabet:
    """An encoding of bytes as text that encodes `group` characters at a time."""

    def __init__(self, name: str, characters: bytes, group: int, decode: Callable[[bytes], bytes]) -> None:
        self.name = name
        self.group = group
        self.decode = decode
        self.known = characters + _LINE_ENDS
        self.marks = bytes(byte in self.known for byte in range(256))
        self.run = re.compile(b"[%s]{%d,}" % (re.escape(self.known), SHORTEST))


BASE64 = Alphabet(
    "base64",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_",
    4,
    lambda text: binascii.a2b_base64(text.translate(_FROM_URL_SAFE)),
)
HEX = Alphabet("hex", b"0123456789abcdefABCDEF", 2, binascii.unhexlify)


class _Run:
    """Decodes one run; the output of each phase goes to its own sink."""

    def __init__(self, alphabet: Alphabet, sinks: list[Callable[[bytes], None]]) -> None:
        self._alphabet = alphabet
        self._sinks = sinks
        self._first = b""  # characters before the run is long enough to be decoded
        self._rests: list[bytes] = []

    def add(self, text: bytes) -> None:
        text = text.translate(None, _LINE_ENDS)
        if not self._rests:
            self._first += text
            if len(self._first) < SHORTEST:
                return
            self._rests = [b""] * len(self._sinks)
            text = self._first
            for phase, sink in enumerate(self._sinks):
                self._decode(phase, text[phase:], sink)
            return
        for phase, sink in enumerate(self._sinks):
            self._decode(phase, self._rests[phase] + text, sink)

    def _decode(self, phase: int, text: bytes, sink: Callable[[bytes], None]) -> None:
        whole = len(text) - len(text) % self._alphabet.group
        self._rests[phase] = text[whole:]
        sink(self._alphabet.decode(text[:whole]))


class TextRuns:
    """Finds and decodes the runs of one alphabet in a stream. `make_sink(phase)` returns a new receiver for the
    decoded bytes of a run in that phase."""

    def __init__(self, alphabet: Alphabet, make_sink: Callable[[int], Callable[[bytes], None]]) -> None:
        self._alphabet = alphabet
        self._make_sink = make_sink
        self._open: _Run | None = None

    def feed(self, data: bytes) -> None:
        """Search the next bytes of the stream."""
        at = 0
        if self._open is not None:
            at = len(data) - len(data.lstrip(self._alphabet.known))
            self._open.add(data[:at])
            if at == len(data):
                return
            self._open = None
        end = len(data.rstrip(self._alphabet.known))
        if self._may_have_run(data):
            for found in self._alphabet.run.finditer(data, at, end):
                self._new().add(found[0])
        if end < len(data):
            self._open = self._new()
            self._open.add(data[max(at, end) :])

    def _new(self) -> _Run:
        return _Run(self._alphabet, [self._make_sink(phase) for phase in range(self._alphabet.group)])

    def _may_have_run(self, data: bytes) -> bool:
        """Return whether a whole block is of the alphabet, as there is in every run of SHORTEST characters."""
        import numpy

        marks = numpy.frombuffer(data.translate(self._alphabet.marks), bool, len(data) // _BLOCK * _BLOCK)
        return bool(marks.reshape(-1, _BLOCK).all(axis=1).any())
