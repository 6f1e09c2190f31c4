"""The model of xenplugin's ways: fixed + round trips x RTT + factor x work.

The work is that of speed.py for memory and data: what the cores need at the best level, or the link. The link is
also limited by the window of all connections together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from lab.model.fit import least_squares
from lab.model.job import Job, Measured, Model, as_packed, beyond, dot, error
from lab.model.speed import Hosts
from xenplugin.link.tcp import MAX_STREAMS

#: Bytes in flight: each connection uses half of Linux's largest send buffer, as is usual.
_WINDOW = MAX_STREAMS * (2 << 20)
#: Least factor of the work: the data may be easier to compress than is assumed.
_LEAST_FACTOR = 0.8


def fit_plugin(way: str, cells: Sequence[Measured], hosts: Hosts) -> Model:
    """Return the model of `way`, fitted to `cells` that were measured on `hosts`."""
    stored = way == "full"  # sent uncompressed

    def terms(job: Job, there: Hosts) -> list[float]:
        rate = _reached(job)
        work = there.seconds(job.memory, job.ratio, rate)
        work += there.seconds(job.data, None if stored else job.data_ratio, rate)
        return [job.rtt, work, 1.0]

    def best(some: Sequence[Measured]) -> list[float]:
        rows, times = [terms(cell.job, hosts) for cell in some], [cell.seconds for cell in some]
        return least_squares(rows, times, [0.0, _LEAST_FACTOR, 0.0])

    def fitted(some: Sequence[Measured]) -> Callable[[Measured], float]:
        known = best(some)
        return lambda cell: dot(known, terms(cell.job, hosts))

    known, pack = best(cells), as_packed(cells)
    words = f"{known[2]:.1f} s + {known[0]:.1f} RTT + {known[1]:.2f} work"
    return Model(
        way, lambda job, there: dot(known, terms(pack(job), there)), words, error(cells, fitted), len(cells),
        beyond(way, cells), lambda job: False,
    )  # fmt: skip


def _reached(job: Job) -> float | None:
    """Return the bit/s that the link and the window allow; None: unlimited."""
    rate = min(job.rate or math.inf, 8 * _WINDOW / job.rtt if job.rtt else math.inf)
    return None if rate == math.inf else rate
