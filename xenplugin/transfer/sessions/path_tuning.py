"""Fits a running transfer to its link: the compression level to the queue, the connections to the path."""

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
#: Looks in a row that must show a lossy path: slow start, too, fills a queue and leaves it empty.
_SURE = 2


class QueueGauge:
    """Reports how fast `queue` drains to the adaptive level, every `_GAUGE` seconds at most."""

    def __init__(self, queue: SendQueue, adaptive: AdaptiveLevel) -> None:
        self._queue = queue
        self._adaptive = adaptive
        self._at = time.monotonic()
        self._left = 0
        self._link_from = math.inf
        self._limited = False
        self._lock = threading.Lock()

    def connected(self, rtt: float) -> None:
        """Note that connections were opened just now over a path with this RTT, in seconds."""
        self._link_from = time.monotonic() + _RAMP * rtt

    def limit_reached(self) -> None:
        """Note that the in-flight limit is reached, so that an empty queue does not mean that the packers are
        slow."""
        self._limited = True

    def read(self) -> None:
        """Read the queue if it is time to; from any thread."""
        with self._lock:
            now = time.monotonic()
            if now - self._at < _GAUGE:
                return
            left, starved = self._queue.observe()
            limited, self._limited = self._limited, False
            if self._at >= self._link_from:
                self._adaptive.drained(left - self._left, now - self._at, starved and not limited)
            self._at, self._left = now, left


class PathTuner:
    """Fits the number of connections and their congestion control to the path, unless the configuration sets
    them."""

    def __init__(self, config: Config, connector: Connector, pool: Pool) -> None:
        self._config = config
        self._connector = connector
        self._pool = pool
        self._at = time.monotonic()
        self._sent = pool.bytes_wire
        self._lossy = 0  # looks in a row

    def look(self) -> None:
        """Measure and adapt, every `_LOOK_EVERY` seconds at most; to be called often."""
        now = time.monotonic()
        rtt, seconds = self._connector.rtt, now - self._at
        if not rtt or seconds < max(_LOOK_EVERY, 5 * rtt):
            return
        if not self._config.streams:
            self._pool.grow((self._pool.bytes_wire - self._sent) / seconds, rtt)
        self._at, self._sent = now, self._pool.bytes_wire
        if not self._config.congestion and self._connector.wanted == tcp.CLEAN:
            self._lossy = self._lossy + 1 if self._pool.is_lossy() else 0
            if self._lossy == _SURE:
                self._connector.wanted = tcp.LOSSY
                self._pool.set_congestion(tcp.LOSSY)
