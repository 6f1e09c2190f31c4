"""Which zstd level moves the most image per second, from what was seen so far. Pure; thread-safe.

Workers pack at S bytes/s together, the link takes D bytes/s, a level packs R-fold: the image moves at
min(S, D * R). Speeds and ratios of levels stand in a usual proportion to each other (USUAL, measured on disk
images); what is learnt is how this host and this content compare with the usual, one factor each, because
content changes from chunk to chunk far more than the proportions do. D is what left the send queue while
it was never empty; when senders starved it is supposed to be more than was seen, so that a faster level is
tried; but not again and again more than the link took when it was last full, or a host that packs more slowly
than its link drains would keep trying levels that pack less. The level with the highest estimate wins, the
cheaper one of near equals.
"""

from __future__ import annotations

import math
import threading

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
#: Weight of a chunk, and of a look at the queue, in the running means.
_CHUNK_WEIGHT = 0.06
_DRAIN_WEIGHT = 0.4
#: Which chunk is tried at all where nothing is packed; its weight is that of all that were not.
_TRY = 8
_TRY_WEIGHT = 1 - (1 - _CHUNK_WEIGHT) ** _TRY
#: How much more a link that starved is supposed to take, each time.
_HOPE = 1.3
#: How much more than when it was last full, each time.
_DOUBT = 1.02
#: A costlier level must promise this much more.
_BETTER = 1.04


class AdaptiveLevel:
    """`fixed`: a level (or STORE) that is always used; None adapts. `workers` pack side by side."""

    def __init__(self, fixed: int | None, workers: int) -> None:
        self._fixed = fixed
        self._workers = workers
        self._level = _START if fixed is None else fixed
        self._slowness = 1.0  # seconds packing takes, in usual seconds
        self._density = 1.0  # log of the ratio, in usual logs
        self._other = 0.0  # seconds per byte a worker spends on reading and hashing
        self._drain: float | None = None
        self._full: float | None = None  # what the link took when it was last full, and a little more since
        self._stored = 0
        self._lock = threading.Lock()

    @property
    def level(self) -> int:
        """The level that is best now."""
        return self._level

    def choose(self) -> int:
        """The level for the next chunk. Where nothing is packed, each `_TRY`-th is all the same, at the cheapest:
        else what was noise for a while would be taken for noise for ever."""
        if self._fixed is None and self._level == STORE:
            self._stored += 1
            if self._stored % _TRY == 0:
                return AUTO_LEVELS[1]
        return self._level

    def packed(self, level: int, raw: int, packed: int, pack_seconds: float, other_seconds: float) -> None:
        """A worker took `other_seconds` to read and hash, and `pack_seconds` to pack `raw` bytes at `level`
        into `packed`."""
        with self._lock:
            self._other = _mean(self._other, other_seconds / raw, _CHUNK_WEIGHT)
            if level in USUAL and level != STORE:
                weight = _TRY_WEIGHT if self._level == STORE else _CHUNK_WEIGHT
                speed, ratio = USUAL[level]
                self._slowness = _mean(self._slowness, pack_seconds / raw * speed, weight)
                density = math.log(max(1.0, raw / max(packed, 1))) / math.log(ratio)
                self._density = _mean(self._density, min(density, 3.0), weight)

    def drained(self, count: int, seconds: float, starved: bool) -> None:
        """`count` packed bytes left the queue within `seconds`; `starved`: senders found it empty."""
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
            self._level = self._best(self._drain)

    def _best(self, drain: float) -> int:
        best, most = self._level, 0.0
        for level, (speed, ratio) in USUAL.items():  # from cheap to costly
            capacity = self._workers / (self._slowness / speed + self._other)
            estimate = min(capacity, drain * ratio**self._density)
            if estimate > most * _BETTER:
                best, most = level, estimate
        return best


def _mean(old: float, new: float, weight: float) -> float:
    return old + weight * (new - old)
