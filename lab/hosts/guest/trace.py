"""What a guest's console log tells: when it ran, for how long it stood still, and whether it found anything wrong.

    1795410995.614532 tick 17 18.42      wall clock, the tick's number, uptime; seconds
    1795410996.100201 ok 3               a round of checks found nothing wrong
    1795410997.000000 CORRUPT disk PATH  this is not what was written

A guest that was moved wrote one part of its log on each host; numbers go on, so parts are joined by them. Lines
that are neither (the kernel's own, which may break into one, or one cut in two by the end of the log) say nothing.
After a move the guest's wall clock is the new host's: a downtime is as exact as the hosts' clocks agree
(lab.hosts.role.clock).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

#: Seconds between two ticks of a guest that runs, at the least.
INTERVAL = 1.0
_LINE = re.compile(r"^(\d+\.\d+) (?:tick (\d+) (\d+\.\d+)|ok (\d+)|CORRUPT (.+?))(?:\r?$|\[ *\d+\.)", re.MULTILINE)


@dataclass(frozen=True)
class Tick:
    """`wall` and `uptime` in seconds, by the guest's clocks."""

    number: int
    wall: float
    uptime: float


@dataclass(frozen=True)
class Trace:
    """`rounds`: how many rounds of checks found nothing wrong; `corrupt`: what others found."""

    ticks: tuple[Tick, ...]
    rounds: int
    corrupt: tuple[str, ...]

    @property
    def gaps(self) -> list[float]:
        """Seconds between one tick and the next."""
        return [after.wall - before.wall for before, after in pairwise(self.ticks)]

    @property
    def downtime(self) -> float:
        """For how long the guest stood still, seconds: the longest gap, less the second there always is."""
        return max(0.0, max(self.gaps, default=0.0) - INTERVAL)

    @property
    def lost(self) -> list[int]:
        """Numbers that are missing between the first and the last."""
        seen = {tick.number for tick in self.ticks}
        return [number for number in range(min(seen), max(seen)) if number not in seen] if seen else []


def parse(text: str) -> Trace:
    """What a console log, or several parts of one joined, says. A tick that stands in two parts counts once."""
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
