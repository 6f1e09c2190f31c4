"""Decides when pre-copy is enough: what is left would take a moment, or it stops shrinking. Pure."""

from __future__ import annotations

import math

#: Seconds that what is left may take.
_MOMENT = 0.3
#: Rounds after the first, at most.
_MOST = 8
#: What is left must shrink to this share from round to round.
_SHRINK = 0.8


class PrecopyPolicy:
    """Judges the rounds of a pre-copy, the first one (of everything) included."""

    def __init__(self) -> None:
        self._rounds = 0
        self._per_chunk = math.inf  # seconds, in the best round
        self._rate = 0.0  # bytes/s that were sent, in the best round
        self._left: float = math.inf  # chunks, or bytes, before
        self._sent = 0
        self._seconds = 0.0  # that what is left would take

    def add_round(self, chunks: int | None, sent: int, seconds: float) -> None:
        """Note that a round read `chunks` (None: all) and sent `sent` bytes of them, in so many seconds."""
        self._rounds += 1
        seconds = max(seconds, 1e-6)
        if chunks:
            self._per_chunk = min(self._per_chunk, seconds / chunks)
        self._rate = max(self._rate, sent / seconds)
        self._sent = sent

    @property
    def seconds_left(self) -> float:
        """Seconds that what was left at the last `enough` would take, by the best round; 0.0 if not known."""
        return self._seconds if math.isfinite(self._seconds) else 0.0

    def enough(self, left: int | None) -> bool:
        """Return whether to stop, when `left` chunks are to be read again (None: unknown)."""
        if left is None:
            # What the last round found is what was written to during the one before: about what is left now.
            now, self._seconds = float(self._sent), self._sent / self._rate if self._rate else 0.0
        else:
            now, self._seconds = float(left), left * self._per_chunk if left else 0.0
        if left == 0 or self._rounds > _MOST:
            return True
        if left is None and self._rounds < 2:
            return False
        before, self._left = self._left, now
        return self._seconds < _MOMENT or now > _SHRINK * before
