"""Fitting a running transfer to its link: what the queue says goes to the ladder, what the path turns out to be
goes to the connections."""

from __future__ import annotations

import math
import threading
import time

from xenplugin.codec.adaptive_level import AdaptiveLevel
from xenplugin.config import Config
from xenplugin.link import tcp
from xenplugin.link.connector import Connector
from xenplugin.link.pool import Pool
from xenplugin.link.queue import SendQueue

_GAUGE = 0.1
#: Round trips in which slow start, not the link, decides what leaves.
_RAMP = 8
#: Seconds between looks at whether the connections fit the path.
_LOOK_EVERY = 0.5
#: Looks in a row that must say that the path loses packets: slow start, too, fills a queue and leaves it empty.
_SURE = 2


class QueueGauge:
    """Reads the queue for the ladder, every `_GAUGE` seconds at most."""

    def __init__(self, queue: SendQueue, ladder: AdaptiveLevel) -> None:
        self._queue = queue
        self._ladder = ladder
        self._at = time.monotonic()
        self._left = 0
        self._link_from = math.inf
        self._bounded = False
        self._lock = threading.Lock()

    def connected(self, rtt: float) -> None:
        """Connections were opened just now over a path of `rtt` seconds."""
        self._link_from = time.monotonic() + _RAMP * rtt

    def bounded(self) -> None:
        """All that may be under way is: an empty queue is the link's doing now, not that of who fills it."""
        self._bounded = True

    def read(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._at < _GAUGE:
                return
            left, starved = self._queue.observe()
            bounded, self._bounded = self._bounded, False
            if self._at >= self._link_from:
                self._ladder.drained(left - self._left, now - self._at, starved and not bounded)
            self._at, self._left = now, left


class PathTuner:
    """Fits connections and congestion control to what the path turns out to be, unless they are set."""

    def __init__(self, config: Config, dialer: Connector, pool: Pool) -> None:
        self._config = config
        self._dialer = dialer
        self._pool = pool
        self._at = time.monotonic()
        self._sent = pool.bytes_wire
        self._lossy = 0  # looks in a row

    def look(self) -> None:
        """Call often; looks every `_LOOK_EVERY` seconds."""
        now = time.monotonic()
        rtt, seconds = self._dialer.rtt, now - self._at
        if not rtt or seconds < max(_LOOK_EVERY, 5 * rtt):
            return
        if not self._config.streams:
            self._pool.grow((self._pool.bytes_wire - self._sent) / seconds, rtt)
        self._at, self._sent = now, self._pool.bytes_wire
        if not self._config.congestion and self._dialer.wanted == tcp.CLEAN:
            self._lossy = self._lossy + 1 if self._pool.is_lossy() else 0
            if self._lossy == _SURE:
                self._dialer.wanted = tcp.LOSSY
                self._pool.set_congestion(tcp.LOSSY)
