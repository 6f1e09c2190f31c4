"""Test whether bytes look random (like encrypted data): chi-square over the 256 byte values, at three scales.

The strategy: windows of 4 KiB, so that a readable stretch is not averaged away; of 64 KiB, where data that is only
compressed shows; and the whole stream, where a slight bias adds up. For noise the sum is chi-square distributed
with 255 degrees of freedom. The limit is the value that a window of noise exceeds once in 10^12 (approximation by
Wilson and Hilferty, 1931), so a terabyte of noise is called readable less than once in a thousand times.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy

WINDOW = 1 << 16  # bytes of a large window
PART = 1 << 12  # bytes of a small window; fewer bytes at the end are not tested
CHANCE = 1e-12  # probability that a window of noise is not taken for noise
_FREEDOM = 255
_MAX_SUSPECTS = 16  # windows that are described


class BiasedWindow(NamedTuple):
    """A window that does not look random: `scale` bytes that end at byte `end` of the tested bytes."""

    scale: int
    end: int
    chi_square: float


def limit(chance: float) -> float:
    """Return the chi-square that noise exceeds with probability `chance`."""
    normal = -NormalDist().inv_cdf(chance)
    spread = 2 / (9 * _FREEDOM)
    return float(_FREEDOM * (1 - spread + normal * math.sqrt(spread)) ** 3)


class RandomnessTest:
    """Tests one stream. `windows`: number of windows tested; `not_noise`: those that do not look random, the first
    of them in `suspects`; `worst`: the largest chi-square. After `close`, `rest` has the bytes at the end that are
    too few to be tested."""

    def __init__(self, chance: float = CHANCE) -> None:
        import numpy

        self._limit = limit(chance)
        self._pending = bytearray()
        self._total = numpy.zeros(256, numpy.int64)
        self._tested = 0  # bytes
        self.windows = 0
        self.worst = 0.0
        self.suspects: list[BiasedWindow] = []
        self.not_noise = 0
        self.rest = b""

    def add(self, data: bytes) -> None:
        """Test the next bytes."""
        self._pending += data
        if len(self._pending) >= WINDOW:
            whole = len(self._pending) // WINDOW * WINDOW
            for start in range(0, whole, WINDOW):
                self._test_window(bytes(self._pending[start : start + WINDOW]))
            del self._pending[:whole]

    def close(self) -> None:
        """Test the remaining bytes in small windows, and the stream as a whole."""
        whole = len(self._pending) // PART * PART
        if whole:
            self._test_window(bytes(self._pending[:whole]))
        self.rest = bytes(self._pending[whole:])
        self._pending.clear()
        if self._tested > WINDOW:
            self._test_counts(self._total, self._tested, self._tested)

    def _test_window(self, window: bytes) -> None:
        """Test a large window and the small windows in it."""
        import numpy

        parts = len(window) // PART
        values = numpy.frombuffer(window, numpy.uint8).reshape(parts, PART).astype(numpy.int64)
        values += numpy.arange(parts)[:, None] * 256
        counts = numpy.bincount(values.ravel(), minlength=parts * 256).reshape(parts, 256)
        for number, part in enumerate(counts):
            self._test_counts(part, PART, self._tested + (number + 1) * PART)
        whole = counts.sum(axis=0)
        self._total += whole
        self._tested += len(window)
        if parts > 1:
            self._test_counts(whole, len(window), self._tested)

    def _test_counts(self, counts: numpy.ndarray, scale: int, end: int) -> None:  # type: ignore[type-arg, unused-ignore]
        """Test how often each byte value occurs in the `scale` bytes before byte `end`."""
        expected = scale / 256
        chi_square = float(((counts - expected) ** 2).sum() / expected)
        self.windows += 1
        self.worst = max(self.worst, chi_square)
        if chi_square > self._limit:
            self.not_noise += 1
            if len(self.suspects) < _MAX_SUSPECTS:
                self.suspects.append(BiasedWindow(scale, end, chi_square))
