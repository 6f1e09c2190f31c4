"""Migrations as the model sees them: jobs, the medians of measured cells, and a fitted model of one way."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lab.measure.results import Disk, Figures, Memory
from lab.measure.way import Family
from lab.measure.ways import WAYS
from lab.model.fit import Error, held_out
from lab.model.speed import Hosts
from lab.report.dataset import Cell, Dataset

#: Compression ratio of zstd level 1 on the data of file systems, if no run shows it.
_DATA_RATIO = 3.0
#: Bytes on the link for each byte that a tool sends, at least: the headers of IP and TCP.
HEADERS = 1.04
#: A job is extrapolated if it is outside the runs' range by more than this share.
NEAR = 0.05


@dataclass(frozen=True)
class Job:
    """A migration. In bytes: `memory` (the length of its stream), `disk`, and `data` (the disk without its holes).
    `ratio`: of zstd level 1 on the memory; `data_ratio`: of the way's own compression on the data. `rate` in bit/s,
    `rtt` in seconds. The parts of a guest that a way does not move make no difference to it."""

    memory: float
    disk: float
    data: float
    rtt: float
    rate: float | None
    ratio: float = 3.5
    data_ratio: float = _DATA_RATIO


@dataclass(frozen=True)
class Measured:
    """A cell of the runs: what was moved, and the median of the times in seconds."""

    job: Job
    seconds: float


@dataclass(frozen=True)
class Model:
    """The fitted model of one way.

    `time`: seconds for a job on hosts. `words`: the formula with its coefficients. `error`: on held-out cells.
    `cells`: how many it was fitted to. `beyond`: the quantities of a job that are outside the runs' range.
    `unbounded`: whether no run met a limit that the job may meet, so that `time` is a lower bound.
    """

    way: str
    time: Callable[[Job, Hosts], float]
    words: str
    error: Error
    cells: int
    beyond: Callable[[Job], list[str]]
    unbounded: Callable[[Job], bool]


def measured(datasets: Sequence[Dataset], way: str) -> list[Measured]:
    """Return the cells of `way`, with the measured amounts of data rather than the scenario's."""
    return [
        Measured(_job(cell, runs, memory, memory.stream), statistics.median(run.seconds for run in runs))
        for dataset in datasets
        for cell, runs in dataset.runs.items()
        if cell.way == way and (memory := runs[0].memory) and memory.stream
    ]


def memory_ratio(datasets: Sequence[Dataset]) -> float:
    """Return the median compression ratio of the memory in the runs, or the usual one if no run has it."""
    runs = (run for dataset in datasets for several in dataset.runs.values() for run in several)
    known = [run.memory.ratio for run in runs if run.memory and run.memory.ratio]
    return statistics.median(known) if known else Job.ratio


def _job(cell: Cell, runs: Sequence[Figures], memory: Memory, stream: int) -> Job:
    disk = runs[0].disk or Disk(0, 0)
    ratios = [ratio for run in runs if (ratio := _packed(cell.way, run))]
    return Job(
        stream, disk.size, disk.data, cell.rtt, cell.rate, memory.ratio or Job.ratio,
        statistics.median(ratios) if ratios else _DATA_RATIO,
    )  # fmt: skip


def _packed(way: str, run: Figures) -> float | None:
    """Return the ratio of the disk's data to the bytes sent for it; None if the run does not show it."""
    data, info = run.disk.data if run.disk else 0, WAYS[way]
    if info.family is Family.PLUGIN:
        sent = float(run.disks_wire_bytes)
    else:
        memory = (run.memory and run.memory.stream) or 0
        sent = (run.router_bytes or 0) / HEADERS - (memory if info.memory else 0)
    return max(1.0, data / sent) if data and sent > 0 and not info.holes else None


def as_packed(cells: Sequence[Measured]) -> Callable[[Job], Job]:
    """Return a function that gives a job the cells' median compression ratio of data."""
    ratio = statistics.median(cell.job.data_ratio for cell in cells)
    return lambda job: replace(job, data_ratio=ratio)


def error(cells: Sequence[Measured], fitted: Callable[[Sequence[Measured]], Callable[[Measured], float]]) -> Error:
    """Return the error of `fitted` on held-out cells."""
    return held_out(cells, fitted, lambda cell: cell.seconds)


def beyond(way: str, cells: Sequence[Measured]) -> Callable[[Job], list[str]]:
    """Return a function that names the quantities of a job that affect `way` and are outside the cells' range."""
    info = WAYS[way]
    quantities: dict[str, Callable[[Job], float]] = {
        "rate": lambda job: job.rate or math.inf,
        "RTT": lambda job: job.rtt,
        **({"memory": lambda job: job.memory} if info.memory else {}),
        **({"disk": lambda job: job.disk} if info.disk else {}),
        **({"data": lambda job: job.data} if info.disk and not info.holes else {}),
    }

    def outside(job: Job) -> list[str]:
        found = []
        for name, quantity in quantities.items():
            seen = [quantity(cell.job) for cell in cells]
            if not min(seen) * (1 - NEAR) <= quantity(job) <= max(seen) * (1 + NEAR):
                found.append(name)
        return found

    return outside


def dot(coefficients: Sequence[float], terms: Sequence[float]) -> float:
    """Return the scalar product."""
    return sum(a * b for a, b in zip(coefficients, terms, strict=True))
