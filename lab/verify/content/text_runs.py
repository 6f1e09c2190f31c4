"""Runs of base64 or hex, decoded piece by piece: what was compressed and then written as text.

The strategy: numpy asks sixteen bytes at a time whether all are of the alphabet (or ends of lines), which noise
never is; only where that is so the runs are cut out. Where in a group of characters the text began is not known:
every phase is decoded, each into a stream of its own.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable

SHORTEST = 40  # characters: less holds nothing that was compressed
_BLOCK = 16
_LINES = b"\r\n"
_URLS = bytes.maketrans(b"-_", b"+/")


class Alphabet:
    """How bytes are written as text: `group` characters at a time."""

    def __init__(self, name: str, characters: bytes, group: int, decode: Callable[[bytes], bytes]) -> None:
        self.name = name
        self.group = group
        self.decode = decode
        self.known = characters + _LINES
        self.marks = bytes(byte in self.known for byte in range(256))
        self.run = re.compile(b"[%s]{%d,}" % (re.escape(self.known), SHORTEST))


BASE64 = Alphabet(
    "base64",
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_",
    4,
    lambda text: binascii.a2b_base64(text.translate(_URLS)),
)
HEX = Alphabet("hex", b"0123456789abcdefABCDEF", 2, binascii.unhexlify)


class _Run:
    """One run being decoded; each phase goes to a sink of its own."""

    def __init__(self, alphabet: Alphabet, sinks: list[Callable[[bytes], None]]) -> None:
        self._alphabet = alphabet
        self._sinks = sinks
        self._first = b""  # until the run is long enough to be one
        self._rests: list[bytes] = []

    def add(self, text: bytes) -> None:
        text = text.translate(None, _LINES)
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


class Runs:
    """Finds the runs of one alphabet in a stream. `sink(phase)` makes who takes what a run says, in a phase."""

    def __init__(self, alphabet: Alphabet, sink: Callable[[int], Callable[[bytes], None]]) -> None:
        self._alphabet = alphabet
        self._sink = sink
        self._open: _Run | None = None

    def feed(self, data: bytes) -> None:
        """The next bytes of the stream."""
        at = 0
        if self._open is not None:
            at = len(data) - len(data.lstrip(self._alphabet.known))
            self._open.add(data[:at])
            if at == len(data):
                return
            self._open = None
        end = len(data.rstrip(self._alphabet.known))
        if self._dense(data):
            for found in self._alphabet.run.finditer(data, at, end):
                self._new().add(found[0])
        if end < len(data):
            self._open = self._new()
            self._open.add(data[max(at, end) :])

    def _new(self) -> _Run:
        return _Run(self._alphabet, [self._sink(phase) for phase in range(self._alphabet.group)])

    def _dense(self, data: bytes) -> bool:
        """Whether there may be a run of SHORTEST, for that has a whole block."""
        import numpy

        marks = numpy.frombuffer(data.translate(self._alphabet.marks), bool, len(data) // _BLOCK * _BLOCK)
        return bool(marks.reshape(-1, _BLOCK).all(axis=1).any())
