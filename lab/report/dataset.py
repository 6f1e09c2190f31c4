"""Runs that may be compared with each other, and the medians of their figures.

A `Dataset` holds all runs of one guest on one machine, in cells of way, link and disk. A `Slice` of it is what one
section of the report shows: all ways and round-trip times at one rate, with one disk.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lab.measure.results import Figures, Host
from lab.measure.ways import WAYS

#: The figures of which there are medians.
Key = Literal["seconds", "downtime", "router_bytes", "cpu_seconds", "ipsec_cpu_seconds"]


@dataclass(frozen=True)
class Guest:
    """A guest, sizes in bytes; 0 if a result of real Xen does not have them. `pages`: the kind of recorded memory;
    empty if the memory was generated or is that of a real guest. `writes` in bytes per second, not in the name."""

    disk: int = 0
    memory: int = 0
    pages: str = ""
    writes: int = 0

    def __str__(self) -> str:
        recorded = f"memory (recorded, {self.pages})" if self.pages else "memory"
        known = ((self.disk, "disk"), (self.memory, recorded))
        return ", ".join(f"{binary(size)} {of}" for size, of in known if size) or "the lab's own guest"


def binary(size: int) -> str:
    """Return `4 GiB`, `160 MiB`."""
    return f"{size / 2**30:g} GiB" if size >= 1 << 30 else f"{size / 2**20:g} MiB"


def title(way: str) -> str:
    """Return a way's name for people."""
    return WAYS[way].title if way in WAYS else way


@dataclass(frozen=True)
class Cell:
    """One way on one link: `rtt` in seconds, `rate` in bit/s or None, `data` in bytes of files on the disk (0: the
    way moves no disk, or the amount is unknown)."""

    way: str
    rtt: float
    rate: int | None
    data: int


@dataclass
class Dataset:
    """All runs that may be compared with each other: of one `guest`, in one kind of lab, on one `machine` (CPU).

    `native`: on network namespaces, otherwise on real Xen. `kind`: the lab, for people. `tag`: a prefix that
    distinguishes the files of this dataset's figures. `hosts`, `versions`: what the runs were measured on.
    `doubtful` runs count, `discarded` ones do not; each is a description for people.
    """

    native: bool
    guest: Guest = Guest()
    kind: str = ""
    machine: str = ""
    tag: str = ""
    runs: dict[Cell, list[Figures]] = field(default_factory=dict)
    hosts: list[Host] = field(default_factory=list)
    versions: list[Mapping[str, str]] = field(default_factory=list)
    discarded: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Return kind, machine and guest, for people."""
        on = f" ({self.machine})" if self.machine else ""
        return f"{self.kind}{on}: {self.guest}"

    @property
    def rates(self) -> list[int | None]:
        """Return the rates of the links, slowest first, unlimited last."""
        return sorted({cell.rate for cell in self.runs}, key=lambda rate: (rate is None, rate or 0))

    @property
    def disks(self) -> list[int]:
        """Return the bytes of files of each disk; [0] if no disk is known."""
        return sorted({cell.data for cell in self.runs if cell.data}) or [0]

    def disks_at(self, rate: int | None) -> list[int]:
        """Return those of `disks` that were moved at `rate`; [0] if none."""
        return sorted({cell.data for cell in self.runs if cell.data and cell.rate == rate}) or [0]

    def used(self, data: int) -> int | None:
        """Return the measured bytes, holes excluded, of the disk with `data` bytes of files; None if unknown."""
        disks = [run.disk for cell, runs in self.runs.items() if cell.data == data for run in runs]
        found = [disk.data for disk in disks if disk]
        return round(statistics.median(found)) if found else None

    def slices(self) -> Iterator[Slice]:
        """Return a slice for each rate and each disk that was moved at it."""
        return (Slice(self, rate, data) for rate in self.rates for data in self.disks_at(rate))


@dataclass(frozen=True)
class Slice:
    """The runs of a dataset at one `rate` (bit/s or None) with the disk that has `data` bytes of files. RTTs are in
    seconds, except where stated."""

    dataset: Dataset
    rate: int | None
    data: int

    @property
    def rtts(self) -> list[float]:
        """Return the round-trip times of the runs."""
        return sorted({cell.rtt for cell in self.dataset.runs if cell.rate == self.rate})

    @property
    def ways(self) -> list[str]:
        """Return the ways that were measured, in the registry's order."""
        return [way for way in WAYS if self.points(way, "seconds")]

    def runs(self, way: str, rtt: float) -> list[Figures]:
        """Return the runs of a cell. Those of a way that moves no disk, or a whole disk with its holes, serve for
        every disk."""
        for data in (self.data, 0, *self.dataset.disks):
            found = self.dataset.runs.get(Cell(way, rtt, self.rate, data))
            if found and (data in (self.data, 0) or (way in WAYS and WAYS[way].holes)):
                return found
        return []

    def median(self, way: str, rtt: float, key: Key = "seconds") -> float | None:
        """Return the median of a figure; None if no run has it."""
        values = self._values(way, rtt, key)
        return statistics.median(values) if values else None

    def points(self, way: str, key: Key) -> list[tuple[float, float]]:
        """Return (RTT in ms, median) of a figure for each RTT."""
        found = ((rtt * 1000, self.median(way, rtt, key)) for rtt in self.rtts)
        return [(rtt, value) for rtt, value in found if value is not None]

    def spread(self, way: str, key: Key) -> list[tuple[float, float, float]]:
        """Return (RTT in ms, least, most) of a figure for each cell of several runs."""
        found = [(rtt * 1000, self._values(way, rtt, key)) for rtt in self.rtts]
        return [(rtt, min(values), max(values)) for rtt, values in found if len(values) > 1]

    def _values(self, way: str, rtt: float, key: Key) -> list[float]:
        values = (getattr(run, key) for run in self.runs(way, rtt))
        return [value for value in values if value is not None]

    def phases(self, way: str, rtt: float) -> dict[str, float]:
        """Return the phases of the median run in seconds; of an even number of runs, the means of the middle two.
        Their sum is the median time."""
        runs = [run for run in self.runs(way, rtt) if run.phases]
        runs.sort(key=lambda run: run.seconds)
        middle = runs[(len(runs) - 1) // 2 : len(runs) // 2 + 1]
        found: dict[str, float] = {}
        for run in middle:
            for name, value in run.phases.items():
                found[name] = found.get(name, 0.0) + value / len(middle)
        return found

    def ratio(self, way: str, rtt: float, *others: str) -> float | None:
        """Return the time of `way` divided by the sum of those of existing and `others`; None if one is unknown."""
        time = self.median(way, rtt)
        base = [self.median(other, rtt) for other in ("existing", *others)]
        known = [each for each in base if each is not None]
        return time / sum(known) if time is not None and len(known) == len(base) else None

    def throughput(self, way: str, rtt: float) -> float | None:
        """Return the median throughput of the memory's stream in MB/s, from xl's start until the guest runs at the
        far side; None if unknown. It needs no disk, so runs without one are taken."""
        values = [
            run.memory.stream / 1e6 / (run.phases["memory"] + run.phases["stopped"])
            for run in self.dataset.runs.get(Cell(way, rtt, self.rate, 0), [])
            if run.memory and run.memory.stream and {"memory", "stopped"} <= run.phases.keys()
        ]
        return statistics.median(values) if values else None
