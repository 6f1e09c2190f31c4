"""Lateness of packets, stolen CPU time and dropped packets: evidence about the quality of a run.

Lateness is the time when a packet was delivered minus the time when it was due. It is kept as a histogram of
fixed size with a step of 16 us, so a percentile is right to 16 us below 131 ms; the maximum is exact. Steal is
the CPU time that the hypervisor gave to others (/proc/stat): a run with much of it should be repeated.
"""

from __future__ import annotations

import os
from typing import Any

_SHIFT = 14  # 16.384 us a step
_STEPS = 8192


class Lateness:
    """A histogram of nanoseconds."""

    def __init__(self) -> None:
        self.counts = [0] * _STEPS
        self.worst = 0  # ns

    def add(self, ns: int) -> None:
        """Count one packet."""
        step = ns >> _SHIFT
        self.counts[step if step < _STEPS else -1] += 1
        if ns > self.worst:
            self.worst = ns

    def percentile(self, share: float) -> float:
        """Return the seconds that a `share` (0..1) of the packets did not exceed; 0 without packets."""
        rank = share * sum(self.counts)
        seen = 0
        for step, count in enumerate(self.counts):
            seen += count
            if count and seen >= rank:
                return min((step + 1) << _SHIFT, self.worst) / 1e9 if step < _STEPS - 1 else self.worst / 1e9
        return 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the count of packets; median, 99th percentile and maximum in seconds."""
        return {
            "count": sum(self.counts),
            "p50": self.percentile(0.5),
            "p99": self.percentile(0.99),
            "max": self.worst / 1e9,
        }


class Steal:
    """CPU time stolen by the hypervisor since this object was made."""

    def __init__(self) -> None:
        self._start = _cpu_times()

    def as_dict(self) -> dict[str, float]:
        """Return stolen seconds of all CPUs, and their share of all CPU time."""
        stolen, total = (now - then for now, then in zip(_cpu_times(), self._start, strict=True))
        return {"seconds": stolen / os.sysconf("SC_CLK_TCK"), "share": stolen / total if total else 0.0}


def _cpu_times() -> tuple[int, int]:
    """Return (steal, all) in clock ticks; proc(5): user nice system idle iowait irq softirq steal ..."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
    except OSError:
        return 0, 0
    return ticks[7], sum(ticks)


def transmit_drops(interface: str) -> int:
    """Return how many packets the kernel dropped before the emulator read them, in this thread's namespace."""
    with open("/proc/thread-self/net/dev", encoding="ascii") as file:
        for line in file:
            name, _, numbers = line.partition(":")
            if name.strip() == interface:
                return int(numbers.split()[11])
    return 0
