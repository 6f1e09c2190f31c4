"""Do the bytes of a stream look like noise, but for what is known to be in the clear?

The strategy: chi-square over the 256 byte values, window by window, so that a readable stretch is not averaged
away. What a protocol sends in the clear by design is taken out first and counted: the opening of ssh, and of a
sealed stream (docs/wire-format.md) the preamble and the length in front of each frame. The lengths must lead
from frame to frame without a gap; where one cannot be a length, that is reported and all that follows is judged
as it is.
"""

from __future__ import annotations

import struct

WINDOW = 1 << 16  # bytes judged at once
SHORTEST = 1 << 12  # a shorter rest is not judged
# Chi-square over 256 bins: noise gives 255 +- 23, so 450 is beyond all chance; zstd's output gives thousands.
NOISE = 450.0
SSH_OPENING = 1 << 13  # bytes; banner and key exchange, generously
_SSH = b"SSH-2.0-"
_MAGIC = b"\x89XPS\r\n\x1a\n"
_PREAMBLE = 64
_LENGTH = struct.Struct(">L")
_LENGTHS = range(17, (1 << 20) + (1 << 14) + 16 + 1)


def begins_sealed(data: bytes) -> bool:
    """Whether a stream with this beginning is a sealed one, forward; what comes back is sealed then, too."""
    return data.startswith(_MAGIC)


class Judge:
    """One direction of a stream. `answer`: it is the backward direction of a sealed stream.

    After `close`: `windows` judged, `not_noise` of them, `worst` chi-square; bytes that were `clear` by design
    and `unjudged` because too few; `unframed`: a sealed stream's lengths lead nowhere.
    """

    def __init__(self, answer: bool = False) -> None:
        self.windows = 0
        self.not_noise = 0
        self.worst = 0.0
        self.clear = 0
        self.unjudged = 0
        self.unframed = False
        self._started = False
        self._framed = answer
        self._skip = 0  # bytes in the clear that are still to come
        self._body = 0  # bytes of the frame that are still to come
        self._head = bytearray()  # of a frame's length
        self._pending = bytearray()

    def add(self, data: bytes) -> None:
        """The next bytes, in order; the first call tells what kind of stream it is."""
        if not self._started and data:
            self._started = True
            if data.startswith(_SSH):
                self._skip = SSH_OPENING
            elif begins_sealed(data):
                self._framed, self._skip = True, _PREAMBLE
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self.clear += skipped
        data = data[skipped:]
        if self._framed:
            self._bodies(data)
        else:
            self._pending += data
        whole = len(self._pending) // WINDOW * WINDOW
        for start in range(0, whole, WINDOW):
            self._judge(bytes(self._pending[start : start + WINDOW]))
        del self._pending[:whole]

    def _bodies(self, data: bytes) -> None:
        """Puts what is sealed into the windows, and counts the lengths as clear."""
        at = 0
        while at < len(data):
            if self._body:
                taken = min(self._body, len(data) - at)
                self._pending += data[at : at + taken]
                self._body -= taken
                at += taken
                continue
            wanted = _LENGTH.size - len(self._head)
            self._head += data[at : at + wanted]
            at += wanted
            if len(self._head) < _LENGTH.size:
                return
            self._body = int(_LENGTH.unpack(self._head)[0])
            if self._body not in _LENGTHS:
                self.unframed, self._framed = True, False
                self._pending += self._head + data[at:]
                return
            self.clear += _LENGTH.size
            self._head.clear()

    def _judge(self, window: bytes) -> None:
        import numpy

        counts = numpy.bincount(numpy.frombuffer(window, numpy.uint8), minlength=256)
        expected = len(window) / 256
        worth = float(((counts - expected) ** 2).sum() / expected)
        self.windows += 1
        self.not_noise += worth > NOISE
        self.worst = max(self.worst, worth)

    def close(self) -> None:
        """The end; a rest that is long enough is judged."""
        if len(self._pending) >= SHORTEST:
            self._judge(bytes(self._pending))
        else:
            self.unjudged += len(self._pending)
        self._pending.clear()
