"""Time of a migration = fixed + round trips x RTT + work, for each way with coefficients of its own.

    xenplugin   work = factor x (memory + disk, at what cores and link give: speed.py), + scanning the holes
    others      work = bytes over min(the link, what the tool reaches, its window / RTT), + a time for each byte of
                data (packing, sealing)

What a tool reaches and its window are searched on a grid, the rest is least squares. The plugin's windows are those
of many connections: they do not bound it.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.errors import LabError
from lab.model.fit import Error, held_out, least_squares
from lab.model.speed import Hosts
from lab.report.data import Set

PLUGIN = ("full", "static", "live")
_TOOLS = ("existing", "plain", "paper-full", "paper-partial", "rsync", "zstd")
#: What zstd 1 makes of data of file systems, where a run does not say.
_RATIO = 3.0
_SPEEDS = [25e6 * 2 ** (n / 2) for n in range(18)]  # bit/s, to 9 Gbit/s
_WINDOWS = [2**n for n in range(18, 27)]  # bytes
#: Of the work, where the data may be easier to pack than is assumed.
_LEAST = 0.8


@dataclass(frozen=True)
class Job:
    """A migration: bytes of `memory` (its stream), of `disk` and of its `data`; `ratio` of the memory by zstd 1,
    `data_ratio` of the data. `rate` bit/s, `rtt` seconds."""

    memory: float
    disk: float
    data: float
    rtt: float
    rate: float | None
    ratio: float = 3.5
    data_ratio: float = _RATIO


@dataclass(frozen=True)
class Model:
    """Of one way. `time` takes a job and the hosts; `words`: its coefficients; `error` on held-out cells."""

    way: str
    time: Callable[[Job, Hosts], float]
    words: str
    error: Error | None
    cells: int


@dataclass(frozen=True)
class _Cell:
    job: Job
    seconds: float


def fit(runs: Set, hosts: Hosts) -> list[Model]:
    """A model for each way that has enough runs. `hosts` are those that the runs were made on. Raises LabError."""
    found = []
    for way in (*_TOOLS, *PLUGIN):
        cells = _cells(runs, way)
        if len(cells) < 4:
            continue
        if way in PLUGIN:
            found.append(_plugin(way, cells, hosts))
        else:
            found.append(_tool(way, cells))
    if not found:
        raise LabError(
            "there are too few runs for a model: four cells of a way at least", hint="xenlab experiment quick"
        )
    return found


def _cells(runs: Set, way: str) -> list[_Cell]:
    """Means of the cells of `way`."""
    found = []
    for cell, several in runs.runs.items():
        memory, disk = several[0].get("memory"), several[0].get("disk") or {}
        if cell.way != way or memory is None:
            continue
        moved = not way.startswith("paper")
        job = Job(
            memory["stream"] if moved else 0, disk.get("size", 0), disk.get("data", 0), cell.rtt, cell.rate,
            memory["ratio"], _RATIO,
        )  # fmt: skip
        found.append(_Cell(job, statistics.mean(run["seconds"] for run in several)))
    return found


def _plugin(way: str, cells: Sequence[_Cell], hosts: Hosts) -> Model:
    def terms(job: Job, there: Hosts) -> list[float]:
        stored = way == "full"
        work = there.seconds(job.memory, job.ratio, job.rate)
        work += there.seconds(job.data, None if stored else job.data_ratio, job.rate)
        return [1.0, job.rtt, work]

    def fitted(some: Sequence[_Cell]) -> Callable[[_Cell], float]:
        known = _fitted([terms(cell.job, hosts) for cell in some], some)
        return lambda cell: _dot(known, terms(cell.job, hosts))

    known = _fitted([terms(cell.job, hosts) for cell in cells], cells)
    words = f"{known[0]:.1f} s + {known[1]:.1f} RTT + {known[2]:.2f} work"
    return Model(way, lambda job, there: _dot(known, terms(job, there)), words, _error(cells, fitted), len(cells))


def _tool(way: str, cells: Sequence[_Cell]) -> Model:
    def moved(job: Job) -> float:
        disk = {
            "paper-full": job.disk,
            "paper-partial": job.data / job.data_ratio,
            "rsync": job.data / job.data_ratio,
        }
        return job.memory + disk.get(way, job.data / job.data_ratio if way == "zstd" else 0.0)

    def terms(job: Job, speed: float, window: float) -> list[float]:
        reached = min(speed, job.rate or speed, 8 * window / job.rtt if job.rtt else speed)
        # What is packed and sealed, or only looked at, before or after it is sent.
        return [1.0, job.rtt, 8 * moved(job) / reached, job.data / 1e9, (job.disk - job.data) / 1e9]

    share = _LEAST if way in ("paper-partial", "rsync", "zstd") else 1.0  # others send what they have as it is

    def best(some: Sequence[_Cell]) -> tuple[list[float], float, float]:
        choices = []
        for speed, window in itertools.product(_SPEEDS, _WINDOWS):
            known = _fitted([terms(cell.job, speed, window) for cell in some], some, share)
            wrong = sum((_dot(known, terms(c.job, speed, window)) / c.seconds - 1) ** 2 for c in some)
            choices.append((wrong, known, speed, window))
        _, known, speed, window = min(choices, key=lambda choice: choice[0])
        return known, speed, window

    def fitted(some: Sequence[_Cell]) -> Callable[[_Cell], float]:
        known, speed, window = best(some)
        return lambda cell: _dot(known, terms(cell.job, speed, window))

    known, speed, window = best(cells)
    reached = f"min(link, {speed / 1e6:.0f} Mbit/s, {window / 1024:.0f} KiB / RTT)"
    words = f"{known[0]:.1f} s + {known[1]:.1f} RTT + {known[2]:.2f} bytes / {reached}"
    words += f" + {known[3]:.0f} s/GB of data" if known[3] else ""
    return Model(
        way, lambda job, _: _dot(known, terms(job, speed, window)), words, _error(cells, fitted), len(cells)
    )


def _fitted(rows: Sequence[list[float]], cells: Sequence[_Cell], share: float = _LEAST) -> list[float]:
    """The third term is the work: of it there is at least that `share`."""
    least = [share if column == 2 else 0.0 for column in range(len(rows[0]))]
    return least_squares(rows, [cell.seconds for cell in cells], least)


def _error(cells: Sequence[_Cell], fitted: Callable[[Sequence[_Cell]], Callable[[_Cell], float]]) -> Error | None:
    return held_out(cells, fitted, lambda cell: cell.seconds)


def _dot(known: Sequence[float], terms: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(known, terms, strict=True))


def site(model: Model, job: Job, hosts: Hosts, guests: int, together: int) -> float:
    """Seconds for `guests` like that over one link, `together` at a time, each pair of hosts having its own cores.
    They share the link: what each does besides goes on beside the others' sending."""
    share = Job(**{**vars(job), "rate": job.rate / together if job.rate else None})
    return model.time(share, hosts) * -(-guests // together)
