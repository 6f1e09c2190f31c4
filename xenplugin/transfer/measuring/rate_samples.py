"""The rate of a path from samples of what has arrived: when slow start is over, and how sure the rate is. Pure.

The samples are cut into windows of a round trip or more. In slow start each window brings about twice as much as
the one before; the path's rate is reached when the last windows bring nearly the same.
"""

from __future__ import annotations

import math
import statistics

from xenplugin.results import Expected

#: Least seconds of a window; windows at the end that must agree, and by how much.
_WINDOW = 0.05
_AGREEING, _NEAR = 4, 0.15
#: Slow start is over with the first window that brings this share of the best one.
_REACHED = 0.7
#: A measured rate has at least this error: the path changes while a transfer lasts.
_LEAST_ERROR = 0.06
#: Share of the best window that a long transfer reaches, if the windows after it are worse.
_OVERFILLED = 0.95
#: If windows were still growing, the rate may be higher by this factor.
_GROWING = 4.0


class RateSamples:
    """Samples of a measurement over a path with the round-trip time `rtt` (seconds). `limit`: no more bytes/s are
    sent (0: no limit)."""

    def __init__(self, rtt: float, limit: float = 0.0) -> None:
        self._limit = limit or math.inf
        self._window = max(_WINDOW, 1.5 * rtt)
        self._last: tuple[float, int] | None = None
        self._began: float | None = None
        self._rates: list[float] = []  # bytes/s of each window

    def add(self, seconds: float, arrived: int) -> None:
        """Note that `arrived` bytes have arrived in all, `seconds` after the start."""
        if not arrived:
            return
        if self._last is None:
            self._last = (seconds, arrived)
            return
        since, before = self._last
        if seconds - since >= self._window:
            self._rates.append((arrived - before) / (seconds - since))
            self._last = (seconds, arrived)

    @property
    def is_steady(self) -> bool:
        """Whether the last windows agree, so that measuring on would tell little more."""
        last = self._rates[-_AGREEING:]
        return len(last) == _AGREEING and 0 < max(last) <= (1 + _NEAR) * min(last)

    def rate(self) -> Expected | None:
        """Return the rate in bytes/s, at most the limit; None if too little has arrived to tell."""
        found = self._carried()
        if found is None:
            return None
        return Expected(*(min(rate, self._limit) for rate in (found.low, found.middle, found.high)))

    def _carried(self) -> Expected | None:
        """Return what the windows say, in which bytes that were held back may arrive at once."""
        rates = [rate for rate in self._rates if rate > 0]
        if not rates:
            return None
        reached = next(place for place, rate in enumerate(rates) if rate >= _REACHED * max(rates))
        tail = rates[reached:]  # without slow start, and with what slowed down after it
        middle = statistics.fmean(tail)
        if not self.is_steady and (len(rates) < _AGREEING or rates[-1] > (1 + _NEAR) * rates[-2]):
            last = rates[-1]
            return Expected(min(middle, last), last, _GROWING * last)
        if not self.is_steady:
            # At its end slow start overfills the link's queue, and what is lost then keeps the connections back for
            # some round trips; a transfer that goes on for longer gets over that.
            best = max(tail)
            return Expected(min(middle, _OVERFILLED * best), _OVERFILLED * best, (1 + _LEAST_ERROR) * best)
        spread = statistics.stdev(tail) / len(tail) ** 0.5 if len(tail) > 1 else 0.0
        error = max(_LEAST_ERROR * middle, 2 * spread)
        return Expected(max(middle - error, 0.1 * middle), middle, middle + error)
