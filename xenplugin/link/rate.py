"""`--rate`: a pace that all connections of a session share.

Each slice of bytes is given the time at which it may leave; time that was not used is kept for BURST
seconds at most. Over a second the rate holds within a few per cent whatever the number of connections.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

BURST = 0.02
#: Most bytes handed to the kernel at once while a rate is set, and while none is.
SLICE, WHOLE = 16 << 10, 256 << 10


class Pacer:
    """`rate` bytes/s; 0: no limit."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = clock()
        self._lock = threading.Lock()
        self.set(rate)

    def set(self, rate: float) -> None:
        """From now on at most `rate` bytes/s."""
        with self._lock:
            self._rate = rate
            #: Bytes to hand to the kernel at once: no more than 50 ms, so that every connection gets its turn.
            self.slice = max(512, min(SLICE, int(rate / 20))) if rate else WHOLE
            self._next = self._clock()

    def due(self, count: int) -> float:
        """Seconds to wait before `count` bytes may leave; the time is taken."""
        with self._lock:
            if not self._rate:
                return 0.0
            now = self._clock()
            start = max(self._next, now - BURST)
            self._next = start + count / self._rate
            return max(0.0, start - now)

    def wait(self, count: int) -> None:
        """Sleep until `count` bytes may leave."""
        delay = self.due(count)
        if delay > 0:
            time.sleep(delay)
