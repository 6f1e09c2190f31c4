"""Time of a migration = fixed + round trips x RTT + work, for each way with coefficients of its own.

    xenplugin   work = factor x (memory + disk, at what cores and link give: speed.py)
    others      work = factor x bytes over min(the link, what the tool reaches, its window / RTT), + a time for each
                byte of data and of holes (packing, sealing)

What a tool reaches and its window are searched on a grid, the rest is least squares. A bound that no run met is not
taken for one: then a quicker link than the runs had is answered with the least that it takes. Where the runs cannot
tell terms apart, what grows with the bytes gets the time, and the fixed part none. How well a disk packs is what
the runs of the way showed. The plugin's window is that of all its connections together.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lab.errors import LabError
from lab.measure.results import Disk, Figures, Memory
from lab.measure.way import Family
from lab.measure.ways import WAYS
from lab.model.fit import LEAST_CELLS, Error, held_out, least_squares
from lab.model.speed import Hosts
from lab.report.dataset import Cell, Dataset
from xenplugin.link.tcp import MAX_STREAMS

#: What zstd 1 makes of data of file systems, where no run says.
_RATIO = 3.0
#: Bytes that the plugin can have under way: of each connection the usual half of Linux's largest send buffer.
_PLUGIN_WINDOW = MAX_STREAMS * (2 << 20)
#: What bounds a tool: bit/s, to 9 Gbit/s, and bytes. Nothing comes first, and is taken where no bound fits better.
_SPEEDS = [math.inf, *(25e6 * 2 ** (n / 2) for n in range(18))]
_WINDOWS = [math.inf, *(2**n for n in range(18, 27))]
#: A bound is believed where the squares of the errors are less than that share of those without.
_TIGHTER, _NOTHING = 0.8, 1e-9
#: Of the plugin's work there is at least that share: the data may be easier to pack than is assumed.
_LEAST = 0.8
#: Of the bytes that a tool sends at least so many go over the link, with the headers of IP and TCP.
_HEADERS = 1.04
#: Of the time that gzip and gunzip take for a byte of data, what they take for one of a hole.
_HOLE = 0.2
#: What is further from the runs than that share of them is beyond them.
_NEAR = 0.05


@dataclass(frozen=True)
class Job:
    """A migration: bytes of `memory` (its stream), of `disk` and of its `data` (what of it is no hole); `ratio` of
    the memory by zstd 1, `data_ratio` of the data as the way packs it. `rate` bit/s, `rtt` seconds. Of a guest:
    what of it a way does not move makes no difference to that way."""

    memory: float
    disk: float
    data: float
    rtt: float
    rate: float | None
    ratio: float = 3.5
    data_ratio: float = _RATIO


@dataclass(frozen=True)
class Model:
    """Of one way. `time` takes a job and the hosts; `words`: its coefficients; `error` on held-out cells. `beyond`:
    in what a job is beyond the runs; `unbounded`: whether no run met what may bound it, so that `time` is the least
    that it takes."""

    way: str
    time: Callable[[Job, Hosts], float]
    words: str
    error: Error
    cells: int
    beyond: Callable[[Job], list[str]]
    unbounded: Callable[[Job], bool]


@dataclass(frozen=True)
class Answer:
    """`seconds`: at least that, if `unbounded`."""

    seconds: float
    beyond: list[str]
    unbounded: bool


@dataclass(frozen=True)
class _Cell:
    job: Job
    seconds: float


def fit(sets: Sequence[Dataset], hosts: Hosts) -> list[Model]:
    """A model for each way that has enough cells, of whatever guests: sizes are terms of it. `hosts` are those that
    the runs were made on. Raises LabError."""
    found = []
    for way, info in WAYS.items():
        cells = _cells(sets, way)
        if len(cells) >= LEAST_CELLS:
            plugin = info.family is Family.PLUGIN
            found.append(_plugin(way, cells, hosts) if plugin else _tool(way, cells))
    if not found:
        raise LabError(
            f"there are too few runs for a model: {LEAST_CELLS} cells of a way at least",
            hint="xenlab experiment quick",
        )
    return found


def too_few(sets: Sequence[Dataset]) -> dict[str, int]:
    """How many cells each way has of which there is no model."""
    known = {way: len(_cells(sets, way)) for way in WAYS}
    return {way: cells for way, cells in known.items() if 0 < cells < LEAST_CELLS}


def memory_ratio(sets: Sequence[Dataset]) -> float:
    """What zstd 1 makes of the memory in the runs; as usual where none says."""
    runs = (run for each in sets for several in each.runs.values() for run in several)
    known = [run.memory.ratio for run in runs if run.memory and run.memory.ratio]
    return statistics.median(known) if known else Job.ratio


def _cells(sets: Sequence[Dataset], way: str) -> list[_Cell]:
    """Medians of the cells of `way`, with the data that the disk was measured to have."""
    return [
        _Cell(_job(cell, several, memory, memory.stream), statistics.median(run.seconds for run in several))
        for each in sets
        for cell, several in each.runs.items()
        if cell.way == way and (memory := several[0].memory) and memory.stream
    ]


def _job(cell: Cell, several: Sequence[Figures], memory: Memory, stream: int) -> Job:
    disk = several[0].disk or Disk(0, 0)
    packed = [ratio for run in several if (ratio := _packed(cell.way, run))]
    return Job(
        stream, disk.size, disk.data, cell.rtt, cell.rate, memory.ratio or Job.ratio,
        statistics.median(packed) if packed else _RATIO,
    )  # fmt: skip


def _packed(way: str, run: Figures) -> float | None:
    """How many bytes of the disk's data went over the link as one; None if the run does not tell."""
    data, info = run.disk.data if run.disk else 0, WAYS[way]
    if info.family is Family.PLUGIN:
        sent = float(run.disks_wire_bytes)
    else:
        memory = (run.memory and run.memory.stream) or 0
        sent = (run.router_bytes or 0) / _HEADERS - (memory if info.memory else 0)
    return max(1.0, data / sent) if data and sent > 0 and not info.holes else None


def _plugin(way: str, cells: Sequence[_Cell], hosts: Hosts) -> Model:
    def reached(job: Job) -> float | None:
        window = 8 * _PLUGIN_WINDOW / job.rtt if job.rtt else math.inf
        rate = min(job.rate or math.inf, window)
        return None if rate == math.inf else rate

    def terms(job: Job, there: Hosts) -> list[float]:
        stored = way == "full"
        work = there.seconds(job.memory, job.ratio, reached(job))
        work += there.seconds(job.data, None if stored else job.data_ratio, reached(job))
        return [job.rtt, work, 1.0]

    def best(some: Sequence[_Cell]) -> list[float]:
        return _fitted([terms(cell.job, hosts) for cell in some], some, [0.0, _LEAST, 0.0])

    def fitted(some: Sequence[_Cell]) -> Callable[[_Cell], float]:
        known = best(some)
        return lambda cell: _dot(known, terms(cell.job, hosts))

    known = best(cells)
    words = f"{known[2]:.1f} s + {known[0]:.1f} RTT + {known[1]:.2f} work"
    as_packed = _as_packed(cells)
    return Model(
        way, lambda job, there: _dot(known, terms(as_packed(job), there)), words, _error(cells, fitted), len(cells),
        _beyond(way, cells), lambda job: False,
    )  # fmt: skip


def _tool(way: str, cells: Sequence[_Cell]) -> Model:
    info = WAYS[way]

    def moved(job: Job) -> float:
        disk = job.disk if info.holes else job.data / job.data_ratio
        return (job.memory if info.memory else 0.0) + (disk if info.disk else 0.0)

    def handled(job: Job) -> list[float]:
        """GB that are packed and sealed, or only looked at: with holes as they are for gzip, data, holes."""
        if not info.disk:
            return [0.0, 0.0, 0.0]
        if info.holes:
            return [job.disk / 1e9, 0.0, 0.0]
        holes = job.disk - job.data
        return [(job.data + _HOLE * holes) / 1e9, job.data / 1e9, holes / 1e9]

    def reached(job: Job, speed: float, window: float) -> float:
        return min(speed, job.rate or math.inf, 8 * window / job.rtt if job.rtt else math.inf)

    def terms(job: Job, speed: float, window: float) -> list[float]:
        return [*handled(job), job.rtt, 8 * moved(job) / reached(job, speed, window), 1.0]

    def best(some: Sequence[_Cell]) -> tuple[list[float], float, float]:
        choices, least = [], [0.0, 0.0, 0.0, 0.0, _HEADERS, 0.0]
        for speed, window in itertools.product(_SPEEDS, _WINDOWS):
            known = _fitted([terms(cell.job, speed, window) for cell in some], some, least)
            wrong = sum((_dot(known, terms(c.job, speed, window)) / c.seconds - 1) ** 2 for c in some)
            choices.append((wrong, known, speed, window))
        free, tight = choices[0], min(choices, key=lambda choice: choice[0])
        _, known, speed, window = tight if tight[0] < _TIGHTER * free[0] - _NOTHING else free
        return known, speed, window

    def fitted(some: Sequence[_Cell]) -> Callable[[_Cell], float]:
        known, speed, window = best(some)
        return lambda cell: _dot(known, terms(cell.job, speed, window))

    known, speed, window = best(cells)

    def under_way(job: Job) -> float:
        return reached(job, speed, window) * job.rtt if job.rtt else 0.0

    fastest = max(reached(cell.job, speed, window) for cell in cells) * (1 + _NEAR)
    longest = max(under_way(cell.job) for cell in cells) * (1 + _NEAR)

    def unbounded(job: Job) -> bool:
        too_fast = speed == math.inf and reached(job, speed, window) > fastest
        return too_fast or (window == math.inf and under_way(job) > longest)

    as_packed = _as_packed(cells)
    return Model(
        way, lambda job, _: _dot(known, terms(as_packed(job), speed, window)), _words(way, known, speed, window),
        _error(cells, fitted), len(cells), _beyond(way, cells), unbounded,
    )  # fmt: skip


def _as_packed(cells: Sequence[_Cell]) -> Callable[[Job], Job]:
    """A job whose data pack as those of the cells did."""
    ratio = statistics.median(cell.job.data_ratio for cell in cells)
    return lambda job: replace(job, data_ratio=ratio)


def _words(way: str, known: Sequence[float], speed: float, window: float) -> str:
    both, data, holes, trips, work, fixed = known
    bounds = [f"{speed / 1e6:.0f} Mbit/s"] if speed < math.inf else []
    bounds += [f"{window / 1024:.0f} KiB / RTT"] if window < math.inf else []
    link = f"min({', '.join(['link', *bounds])})" if bounds else "link"
    words = f"{fixed:.1f} s + {trips:.1f} RTT + {work:.2f} bytes / {link}"
    alike = WAYS[way].holes
    for name, value in (
        ("disk" if alike else "data", both + data), ("holes", 0.0 if alike else _HOLE * both + holes),
    ):  # fmt: skip
        words += f" + {value:.1f} s/GB of {name}" if value else ""
    return words


def _beyond(way: str, cells: Sequence[_Cell]) -> Callable[[Job], list[str]]:
    """In what a job is beyond the runs of `way`, of all that makes a difference to it."""
    info = WAYS[way]
    parts: dict[str, Callable[[Job], float]] = {
        "rate": lambda job: job.rate or math.inf,
        "RTT": lambda job: job.rtt,
        **({"memory": lambda job: job.memory} if info.memory else {}),
        **({"disk": lambda job: job.disk} if info.disk else {}),
        **({"data": lambda job: job.data} if info.disk and not info.holes else {}),
    }

    def beyond(job: Job) -> list[str]:
        found = []
        for name, part in parts.items():
            seen = [part(cell.job) for cell in cells]
            if not min(seen) * (1 - _NEAR) <= part(job) <= max(seen) * (1 + _NEAR):
                found.append(name)
        return found

    return beyond


def _fitted(rows: Sequence[list[float]], cells: Sequence[_Cell], least: Sequence[float]) -> list[float]:
    return least_squares(rows, [cell.seconds for cell in cells], least)


def _error(cells: Sequence[_Cell], fitted: Callable[[Sequence[_Cell]], Callable[[_Cell], float]]) -> Error:
    return held_out(cells, fitted, lambda cell: cell.seconds)


def _dot(known: Sequence[float], terms: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(known, terms, strict=True))


def site(model: Model, job: Job, hosts: Hosts, guests: int, together: int) -> Answer:
    """For `guests` like that over one link, at most `together` at a time, each pair of hosts having its own cores.
    They share the link: what each does besides goes on beside the others' sending."""
    together = min(together, guests)
    share = replace(job, rate=job.rate / together if job.rate else None)
    seconds = model.time(share, hosts) * -(-guests // together)
    return Answer(seconds, model.beyond(share), model.unbounded(share))
