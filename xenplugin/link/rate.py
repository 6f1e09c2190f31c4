"""The rate limit of `--rate`, shared by all connections of a session.

Each slice of bytes is given the time at which it may be sent; unused time is kept for at most BURST seconds. Over a
second the rate holds within a few per cent, for any number of connections.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: Seconds of unused time that may be made up for.
BURST = 0.02
#: Most bytes given to the kernel at once with a rate limit, and without one; few enough to show progress on a
#: slow link.
SLICE, WHOLE = 16 << 10, 256 << 10


class Pacer:
    """Limits sending to `rate` bytes/s (0: no limit). Thread-safe."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = clock()
        self._lock = threading.Lock()
        self.set(rate)

    def set(self, rate: float) -> None:
        """Limit sending to `rate` bytes/s from now on (0: no limit)."""
        with self._lock:
            self._rate = rate
            #: Bytes to give to the kernel at once: at most 50 ms of the rate, so that all connections take turns.
            self.slice = max(512, min(SLICE, int(rate / 20))) if rate else WHOLE
            self._next = self._clock()

    def due(self, count: int) -> float:
        """Reserve the time for `count` bytes; return the seconds to wait before they may be sent."""
        with self._lock:
            if not self._rate:
                return 0.0
            now = self._clock()
            start = max(self._next, now - BURST)
            self._next = start + count / self._rate
            return max(0.0, start - now)

    def wait(self, count: int) -> None:
        """Sleep until `count` bytes may be sent."""
        delay = self.due(count)
        if delay > 0:
            time.sleep(delay)
