"""Do bytes look like noise? Chi-square over the 256 byte values, at three scales.

The strategy: 4 KiB at a time, so that a readable stretch is not averaged away; 64 KiB at a time, where what is
merely compressed shows; and all of a stream, where the slightest leaning adds up. For noise the sum has 255 degrees
of freedom; the limits are where chance alone is once in 10^12 windows (Wilson and Hilferty, 1931), so a capture of
a terabyte of noise is taken for readable less than once in a thousand times.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy

WINDOW = 1 << 16  # bytes judged at once
PART = 1 << 12  # bytes of its parts; a shorter rest is not judged
CHANCE = 1e-12  # that a window of noise is not taken for noise
_FREEDOM = 255


class Verdict(NamedTuple):
    """A window that is no noise: `scale` bytes up to byte `end` of what was judged, and its chi-square."""

    scale: int
    end: int
    chi_square: float


def limit(chance: float) -> float:
    """The chi-square that noise exceeds with probability `chance`."""
    normal = -NormalDist().inv_cdf(chance)
    spread = 2 / (9 * _FREEDOM)
    return float(_FREEDOM * (1 - spread + normal * math.sqrt(spread)) ** 3)


class Judge:
    """Judges one stream. After `close`: `windows` judged at the two small scales, the `worst` chi-square, `rest`:
    the bytes at the end that are too few."""

    def __init__(self, chance: float = CHANCE) -> None:
        import numpy

        self._limit = limit(chance)
        self._pending = bytearray()
        self._total = numpy.zeros(256, numpy.int64)
        self._judged = 0  # bytes
        self.windows = 0
        self.worst = 0.0
        self.suspects: list[Verdict] = []
        self.not_noise = 0
        self.rest = b""

    def add(self, data: bytes) -> None:
        """The next bytes, in order."""
        self._pending += data
        if len(self._pending) >= WINDOW:
            whole = len(self._pending) // WINDOW * WINDOW
            for start in range(0, whole, WINDOW):
                self._judge(bytes(self._pending[start : start + WINDOW]))
            del self._pending[:whole]

    def close(self) -> None:
        """The end: what is left is judged in parts, and the stream as a whole."""
        whole = len(self._pending) // PART * PART
        if whole:
            self._judge(bytes(self._pending[:whole]))
        self.rest = bytes(self._pending[whole:])
        self._pending.clear()
        if self._judged > WINDOW:
            self._weigh(self._total, self._judged, self._judged)

    def _judge(self, window: bytes) -> None:
        import numpy

        parts = len(window) // PART
        values = numpy.frombuffer(window, numpy.uint8).reshape(parts, PART).astype(numpy.int64)
        values += numpy.arange(parts)[:, None] * 256
        counts = numpy.bincount(values.ravel(), minlength=parts * 256).reshape(parts, 256)
        for number, part in enumerate(counts):
            self._weigh(part, PART, self._judged + (number + 1) * PART)
        whole = counts.sum(axis=0)
        self._total += whole
        self._judged += len(window)
        if parts > 1:
            self._weigh(whole, len(window), self._judged)

    def _weigh(self, counts: numpy.ndarray, scale: int, end: int) -> None:  # type: ignore[type-arg, unused-ignore]
        expected = scale / 256
        worth = float(((counts - expected) ** 2).sum() / expected)
        self.windows += 1
        self.worst = max(self.worst, worth)
        if worth > self._limit:
            self.not_noise += 1
            if len(self.suspects) < 16:
                self.suspects.append(Verdict(scale, end, worth))
