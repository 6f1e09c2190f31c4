"""Notices that a peer which answers makes no progress. Pure.

A heartbeat shows that a process runs, not that data arrives: the far side's disk may hang, or a router may drop
large packets only. What counts is what was delivered while something waited to be."""

from __future__ import annotations


class Stall:
    """Seconds for which nothing was delivered although something waited."""

    def __init__(self) -> None:
        self._most = 0
        self.seconds = 0.0

    def look(self, delivered: int, waiting: bool, seconds: float) -> None:
        """Note that `seconds` after the last look `delivered` bytes had arrived in all, and whether more wait. What
        was delivered over a connection that was lost before it was acknowledged, and again, counts once."""
        if delivered > self._most or not waiting:
            self.seconds = 0.0
        else:
            self.seconds += seconds
        self._most = max(self._most, delivered)
