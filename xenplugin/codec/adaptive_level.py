"""Chooses the zstd level that moves the most image bytes per second, from measurements of this transfer.
Thread-safe.

The workers compress S bytes/s together, the link takes D bytes/s, a level compresses by the factor R: the image
moves at min(S, D * R). The speeds and ratios of the levels have a usual proportion to each other (USUAL, measured
on disk images). What is learnt is one factor each for how this host and this content compare with the usual,
because content changes from chunk to chunk far more than the proportions do.

D is what left the send queue while it was never empty. When senders found the queue empty, D is assumed to be
higher than measured, so that a faster level is tried; but it grows only slowly beyond what the link took when it
was last full, because a host that compresses more slowly than its link drains would keep trying levels that
compress less. The level with the highest estimate is used, the cheaper one if two are nearly equal.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from xenplugin.codec.compress import STORE

#: level: (bytes/s of one core, ratio) on an ordinary disk image; `xenplugin bench` measures them.
USUAL = {
    STORE: (4.0e9, 1.0),
    -1: (289e6, 3.1),
    1: (267e6, 3.35),
    3: (179e6, 3.6),
    6: (57e6, 3.8),
    9: (37e6, 3.85),
}
AUTO_LEVELS = tuple(USUAL)
_START = 3
#: Weight of a chunk, and of a measurement of the queue, in the running means.
_CHUNK_WEIGHT = 0.06
_DRAIN_WEIGHT = 0.4
#: While nothing is compressed, each `_TRY`-th chunk is; its weight is that of `_TRY` chunks.
_TRY = 8
_TRY_WEIGHT = 1 - (1 - _CHUNK_WEIGHT) ** _TRY
#: Factor by which D is raised each time senders found the queue empty.
_HOPE = 1.3
#: Factor by which the highest D since the link was last full is raised each time.
_DOUBT = 1.02
#: A costlier level must be better by this factor.
_BETTER = 1.04


@dataclass(frozen=True)
class LevelSpeeds:
    """How a host and its content compare with USUAL. `slowness`: seconds that compression takes, relative to the
    usual; `density`: the logarithm of the ratio, relative to the usual; `other`: seconds per byte that a worker
    spends on reading and hashing; `workers`: threads that compress."""

    workers: int
    slowness: float = 1.0
    density: float = 1.0
    other: float = 0.0

    def capacity(self, level: int) -> float:
        """Return the bytes/s that all workers read, hash and compress at `level`."""
        return self.workers / (self.slowness / USUAL[level][0] + self.other)

    def ratio(self, level: int) -> float:
        """Return how many times smaller the content becomes at `level`."""
        return float(USUAL[level][1] ** self.density)

    def best(self, drain: float, present: int) -> int:
        """Return the level that moves the most over a link of `drain` bytes/s; `present` is in use now."""
        best, most = present, 0.0
        for level in USUAL:  # from cheap to costly
            estimate = min(self.capacity(level), drain * self.ratio(level))
            if estimate > most * _BETTER:
                best, most = level, estimate
        return best


def density(level: int, raw: int, packed: int) -> float:
    """Return the density of `raw` bytes that became `packed` bytes at `level`."""
    return min(math.log(max(1.0, raw / max(packed, 1))) / math.log(USUAL[level][1]), 3.0)


class AdaptiveLevel:
    """The level for the next chunk. `fixed`: a level (or STORE) that is always used; None adapts. `workers` is the
    number of threads that compress."""

    def __init__(self, fixed: int | None, workers: int) -> None:
        self._fixed = fixed
        self._workers = workers
        self._level = _START if fixed is None else fixed
        self._slowness = 1.0  # seconds that compression takes, relative to USUAL
        self._density = 1.0  # log of the ratio, relative to USUAL
        self._other = 0.0  # seconds per byte that a worker spends on reading and hashing
        self._drain: float | None = None
        self._full: float | None = None  # D when the link was last full, raised a little since
        self._stored = 0
        self._lock = threading.Lock()

    @property
    def level(self) -> int:
        """The level with the best estimate now."""
        return self._level

    def choose(self) -> int:
        """Return the level for the next chunk. While nothing is compressed, each `_TRY`-th chunk is, at the
        cheapest level: otherwise it would not be noticed when the content becomes compressible again."""
        if self._fixed is None and self._level == STORE:
            self._stored += 1
            if self._stored % _TRY == 0:
                return AUTO_LEVELS[1]
        return self._level

    def packed(self, level: int, raw: int, packed: int, pack_seconds: float, other_seconds: float) -> None:
        """Note that a worker took `other_seconds` to read and hash `raw` bytes, and `pack_seconds` to compress them
        to `packed` bytes at `level`."""
        with self._lock:
            self._other = _mean(self._other, other_seconds / raw, _CHUNK_WEIGHT)
            if level in USUAL and level != STORE:
                weight = _TRY_WEIGHT if self._level == STORE else _CHUNK_WEIGHT
                speed, _ = USUAL[level]
                self._slowness = _mean(self._slowness, pack_seconds / raw * speed, weight)
                self._density = _mean(self._density, density(level, raw, packed), weight)

    def drained(self, count: int, seconds: float, starved: bool) -> None:
        """Note that `count` compressed bytes left the queue within `seconds`; `starved`: senders found it empty."""
        if self._fixed is not None or count <= 0 or seconds <= 0:
            return
        with self._lock:
            rate = count / seconds
            if starved:
                self._drain = max(self._drain or 0.0, rate) * _HOPE
                if self._full is not None:
                    self._full = max(self._full * _DOUBT, rate)
                    self._drain = min(self._drain, self._full)
            elif self._drain is None or rate < self._drain / 2:
                self._drain = rate
            else:
                self._drain = _mean(self._drain, rate, _DRAIN_WEIGHT)
            if not starved:
                self._full = self._drain
            speeds = LevelSpeeds(self._workers, self._slowness, self._density, self._other)
            self._level = speeds.best(self._drain, self._level)


def _mean(old: float, new: float, weight: float) -> float:
    return old + weight * (new - old)
