"""Reads a guest's console log: when it ran, how long it stood still, and whether it found corrupt data.

    1795410995.614532 tick 17 18.42      wall clock, the tick's number, uptime; seconds
    1795410996.100201 ok 3               a round of checks found no corruption
    1795410997.000000 CORRUPT disk PATH  the content differs from what was written

A migrated guest has written one part of its log on each host. The numbers continue, so the parts are joined by
them. Other lines are ignored: the kernel's own, which may be in the middle of one of these, and one that is cut off
by the end of the log. After a migration the guest's wall clock is the new host's, so a downtime is only as exact as
the hosts' clocks agree (lab.hosts.role.clock).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

#: The shortest time between two ticks of a running guest, seconds.
INTERVAL = 1.0
_LINE = re.compile(r"^(\d+\.\d+) (?:tick (\d+) (\d+\.\d+)|ok (\d+)|CORRUPT (.+?))(?:\r?$|\[ *\d+\.)", re.MULTILINE)


@dataclass(frozen=True)
class Tick:
    """A sign of life of the guest. `wall` and `uptime` are in seconds, by the guest's clocks."""

    number: int
    wall: float
    uptime: float


@dataclass(frozen=True)
class Trace:
    """A guest's log. `rounds`: how many rounds of checks found no corruption; `corrupt`: what the others found."""

    ticks: tuple[Tick, ...]
    rounds: int
    corrupt: tuple[str, ...]

    @property
    def gaps(self) -> list[float]:
        """The seconds between each tick and the next."""
        return [after.wall - before.wall for before, after in pairwise(self.ticks)]

    @property
    def downtime(self) -> float:
        """How long the guest stood still, in seconds: the longest gap, less the usual second."""
        return max(0.0, max(self.gaps, default=0.0) - INTERVAL)

    @property
    def lost(self) -> list[int]:
        """The numbers of ticks that are missing between the first and the last."""
        seen = {tick.number for tick in self.ticks}
        return [number for number in range(min(seen), max(seen)) if number not in seen] if seen else []


def parse(text: str) -> Trace:
    """Read a console log, or several parts of one joined. A tick that occurs in two parts counts once."""
    ticks: dict[int, Tick] = {}
    rounds, corrupt = 0, []
    for found in _LINE.finditer(text):
        wall, number, uptime, round_, what = found.groups()
        if number is not None:
            ticks.setdefault(int(number), Tick(int(number), float(wall), float(uptime)))
        elif round_ is not None:
            rounds += 1
        else:
            corrupt.append(what)
    return Trace(tuple(ticks[number] for number in sorted(ticks)), rounds, tuple(corrupt))
