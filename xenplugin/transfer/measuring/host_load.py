"""How much of a host's CPU is taken by others: threads that want to run, and time that the hypervisor gives away.

Both are read from /proc while this process waits for something else, so that its own work is not counted.
"""

from __future__ import annotations

import statistics
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_LOADAVG, _STAT = Path("/proc/loadavg"), Path("/proc/stat")
_EVERY = 0.02


@dataclass(frozen=True)
class HostLoad:
    """`running`: other threads that run or wait for a core; `steal`: the share (0 to 1) of CPU time that the
    hypervisor gives to others."""

    running: float = 0.0
    steal: float = 0.0

    def cores(self, count: int, threads: int) -> float:
        """Return how many of `count` cores `threads` threads get that always want to run."""
        wanted = threads + self.running
        share = min(threads, count) if wanted <= count else count * threads / wanted
        return max(0.05, share * (1 - self.steal))


class LoadWatch:
    """Watches the load of this host from its construction to `result()`."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._running: list[int] = []
        self._before = _times()
        self._thread = threading.Thread(target=self._watch, name="load", daemon=True)
        self._thread.start()

    def result(self) -> HostLoad:
        """Return the load since the construction."""
        self._stop.set()
        self._thread.join()
        running = statistics.fmean(self._running or [0])
        total, steal = (now - before for now, before in zip(_times(), self._before, strict=True))
        return HostLoad(running, min(0.9, steal / total) if total > 0 else 0.0)

    def _watch(self) -> None:
        with suppress(OSError, ValueError, IndexError):
            while True:
                running = int(_LOADAVG.read_text(encoding="ascii").split()[3].partition("/")[0])
                self._running.append(max(0, running - 1))  # this thread runs
                if self._stop.wait(_EVERY):
                    return


def _times() -> tuple[int, int]:
    """Return the CPU time of all cores so far, and what of it was stolen, in clock ticks (proc(5))."""
    with suppress(OSError, ValueError):
        with _STAT.open(encoding="ascii") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
        return sum(ticks), ticks[7] if len(ticks) > 7 else 0
    return 0, 0
