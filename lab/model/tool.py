"""The model of all ways but xenplugin's:

    fixed + round trips x RTT + factor x bytes / min(link, the tool's speed, its window / RTT)
    + a time for each byte of data and of holes (compressing, encrypting)

The tool's speed and window are searched on a grid, the rest is least squares. If no run hit a limit, none is
assumed; for faster links the prediction is then a lower bound. If the runs cannot separate terms, those that grow
with the bytes get the time, and the fixed part none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.measure.way import Way
from lab.measure.ways import WAYS
from lab.model.fit import least_squares
from lab.model.job import HEADERS, NEAR, Job, Measured, Model, as_packed, beyond, dot, error

#: Limits of a tool that are tried: speed in bit/s, to 9 Gbit/s, and window in bytes. "No limit" comes first, and is
#: taken if no limit fits better.
_SPEEDS = [math.inf, *(25e6 * 2 ** (n / 2) for n in range(18))]
_WINDOWS = [math.inf, *(2**n for n in range(18, 27))]
#: A limit is accepted if it reduces the sum of the squared errors to less than this share.
_TIGHTER, _NOTHING = 0.8, 1e-9
#: Time of gzip and gunzip for a byte of a hole, as a share of that for a byte of data.
_HOLE = 0.2


@dataclass(frozen=True)
class _Tool:
    """A way with the limits of its tool: `speed` in bit/s, `window` in bytes; infinite if there is none."""

    way: Way
    speed: float = math.inf
    window: float = math.inf

    def reached(self, job: Job) -> float:
        """Return the bit/s that link and tool allow."""
        return min(self.speed, job.rate or math.inf, 8 * self.window / job.rtt if job.rtt else math.inf)

    def in_flight(self, job: Job) -> float:
        """Return the bits in flight at that rate."""
        return self.reached(job) * job.rtt if job.rtt else 0.0

    def terms(self, job: Job) -> list[float]:
        """Return what the coefficients are multiplied with: GB handled, RTT, seconds on the link, 1."""
        return [*self._handled(job), job.rtt, 8 * self._moved(job) / self.reached(job), 1.0]

    def _moved(self, job: Job) -> float:
        """Return the bytes sent."""
        disk = job.disk if self.way.holes else job.data / job.data_ratio
        return (job.memory if self.way.memory else 0.0) + (disk if self.way.disk else 0.0)

    def _handled(self, job: Job) -> list[float]:
        """Return the GB that are compressed and encrypted or only read: data and holes in gzip's proportion, data
        alone, holes alone."""
        if not self.way.disk:
            return [0.0, 0.0, 0.0]
        if self.way.holes:
            return [job.disk / 1e9, 0.0, 0.0]
        holes = job.disk - job.data
        return [(job.data + _HOLE * holes) / 1e9, job.data / 1e9, holes / 1e9]

    def words(self, known: Sequence[float]) -> str:
        """Return the formula with the coefficients `known`."""
        both, data, holes, trips, work, fixed = known
        limits = [f"{self.speed / 1e6:.0f} Mbit/s"] if self.speed < math.inf else []
        limits += [f"{self.window / 1024:.0f} KiB / RTT"] if self.window < math.inf else []
        link = f"min({', '.join(['link', *limits])})" if limits else "link"
        words = f"{fixed:.1f} s + {trips:.1f} RTT + {work:.2f} bytes / {link}"
        of_holes = 0.0 if self.way.holes else _HOLE * both + holes
        for name, value in (("disk" if self.way.holes else "data", both + data), ("holes", of_holes)):
            words += f" + {value:.1f} s/GB of {name}" if value else ""
        return words


def fit_tool(way: str, cells: Sequence[Measured]) -> Model:
    """Return the model of `way`, fitted to `cells`."""

    def fitted(some: Sequence[Measured]) -> Callable[[Measured], float]:
        known, tool = _best(way, some)
        return lambda cell: dot(known, tool.terms(cell.job))

    known, tool = _best(way, cells)
    pack = as_packed(cells)
    fastest = max(tool.reached(cell.job) for cell in cells) * (1 + NEAR)
    longest = max(tool.in_flight(cell.job) for cell in cells) * (1 + NEAR)

    def unbounded(job: Job) -> bool:
        too_fast = tool.speed == math.inf and tool.reached(job) > fastest
        return too_fast or (tool.window == math.inf and tool.in_flight(job) > longest)

    return Model(
        way, lambda job, _: dot(known, tool.terms(pack(job))), tool.words(known), error(cells, fitted), len(cells),
        beyond(way, cells), unbounded,
    )  # fmt: skip


def _best(way: str, cells: Sequence[Measured]) -> tuple[list[float], _Tool]:
    """Return the coefficients and limits that come closest to `cells`."""
    times = [cell.seconds for cell in cells]
    choices = []
    for speed, window in itertools.product(_SPEEDS, _WINDOWS):
        tool = _Tool(WAYS[way], speed, window)
        rows = [tool.terms(cell.job) for cell in cells]
        known = least_squares(rows, times, [0.0, 0.0, 0.0, 0.0, HEADERS, 0.0])
        wrong = sum((dot(known, row) / time - 1) ** 2 for row, time in zip(rows, times, strict=True))
        choices.append((wrong, known, tool))
    free, tight = choices[0], min(choices, key=lambda choice: choice[0])
    _, known, tool = tight if tight[0] < _TIGHTER * free[0] - _NOTHING else free
    return known, tool
