"""Result files grouped for the report and the model.

A `Dataset` holds all runs of one guest on one machine, in cells of way, link and disk, and computes their medians.
Discarded runs are counted and not used. Runs of `xenlab run`, which belong to no scenario, count like all others.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lab.errors import LabError
from lab.hosts.spec import Spec, Xen
from lab.measure import results
from lab.measure.results import Figures, Host, RunResult
from lab.measure.way import Family
from lab.measure.ways import WAYS

#: The figures of which there are medians.
Key = Literal["seconds", "downtime", "router_bytes", "cpu_seconds", "ipsec_cpu_seconds"]
_HINT = "xenlab experiment quick makes results/quick"


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

    def rtts(self, rate: int | None) -> list[float]:
        """Return the round-trip times at `rate`, in seconds."""
        return sorted({cell.rtt for cell in self.runs if cell.rate == rate})

    def ways(self, rate: int | None, data: int) -> list[str]:
        """Return the ways that were measured at `rate` with that disk, in the registry's order."""
        return [way for way in WAYS if self.points(way, rate, data, "seconds")]

    def of(self, way: str, rtt: float, rate: int | None, data: int) -> list[Figures]:
        """Return the runs of a cell. Those of a way that moves no disk, or a whole disk with its holes, serve for
        every disk."""
        for wanted in (data, 0, *self.disks):
            found = self.runs.get(Cell(way, rtt, rate, wanted))
            if found and (wanted in (data, 0) or (way in WAYS and WAYS[way].holes)):
                return found
        return []

    def median(self, way: str, rtt: float, rate: int | None, data: int, key: Key = "seconds") -> float | None:
        """Return the median of a figure; None if no run has it."""
        values = self._values(way, rtt, rate, data, key)
        return statistics.median(values) if values else None

    def points(self, way: str, rate: int | None, data: int, key: Key) -> list[tuple[float, float]]:
        """Return (RTT in ms, median) of a figure for each RTT."""
        found = ((rtt * 1000, self.median(way, rtt, rate, data, key)) for rtt in self.rtts(rate))
        return [(rtt, value) for rtt, value in found if value is not None]

    def spread(self, way: str, rate: int | None, data: int, key: Key) -> list[tuple[float, float, float]]:
        """Return (RTT in ms, least, most) of a figure for each cell of several runs."""
        found = []
        for rtt in self.rtts(rate):
            values = self._values(way, rtt, rate, data, key)
            if len(values) > 1:
                found.append((rtt * 1000, min(values), max(values)))
        return found

    def _values(self, way: str, rtt: float, rate: int | None, data: int, key: Key) -> list[float]:
        values = (getattr(run, key) for run in self.of(way, rtt, rate, data))
        return [value for value in values if value is not None]

    def phases(self, way: str, rtt: float, rate: int | None, data: int) -> dict[str, float]:
        """Return the phases of the median run in seconds; of an even number of runs, the means of the middle two.
        Their sum is the median time."""
        runs = [run for run in self.of(way, rtt, rate, data) if run.phases]
        runs.sort(key=lambda run: run.seconds)
        middle = runs[(len(runs) - 1) // 2 : len(runs) // 2 + 1]
        found: dict[str, float] = {}
        for run in middle:
            for name, value in run.phases.items():
                found[name] = found.get(name, 0.0) + value / len(middle)
        return found


def title(way: str) -> str:
    """Return a way's name for people."""
    return WAYS[way].title if way in WAYS else way


def load(folders: Sequence[Path]) -> list[Dataset]:
    """Read all results in `folders` and return a dataset for each guest, namespaces first. Raises LabError."""
    sets: dict[tuple[str, Guest, str], Dataset] = {}
    for folder in folders:
        if not folder.is_dir():
            raise LabError(f"there is no folder {folder}", hint=_HINT)
        for path in sorted(folder.glob("*.json")):
            _add(sets, results.load(path))
    found = sorted((each for each in sets.values() if each.runs), key=lambda each: not each.native)
    if not found:
        raise LabError(f"there are no results in {', '.join(map(str, folders))}", hint=_HINT)
    found[0].discarded += [line for each in sets.values() if not each.runs for line in each.discarded]
    if len({(each.kind, each.guest) for each in found}) == len(found):
        for each in found:
            each.machine = ""  # kind and guest suffice as a name
    _tag(found)
    return found


def _tag(sets: Sequence[Dataset]) -> None:
    """Give each dataset a tag of its own: empty for the first of namespaces, `xen` for the first of real Xen, and
    the guest's sizes in addition for the others."""
    named = set()
    for each in sets:
        kind, guest = "" if each.native else "xen", each.guest
        words = (binary(guest.disk), binary(guest.memory), guest.pages, each.machine) if kind in named else ()
        each.tag = re.sub(r"[^a-z0-9-]+", "", "-".join(filter(None, (kind, *words))).lower())
        while each.tag in named:
            each.tag += "x"
        named |= {kind, each.tag}


def _add(sets: dict[tuple[str, Guest, str], Dataset], result: RunResult) -> None:
    kind, guest, machine = _kind(result), _guest(result), result.host.cpu
    native = result.spec.provider == "netns"
    dataset = sets.setdefault((kind, guest, machine), Dataset(native, guest, kind, machine))
    link = result.spec.link
    cell = Cell(_way(result.kind, result.spec), link.rtt, link.rate_bits, result.run.data if result.run else 0)
    words = f"{title(cell.way)} at {cell.rtt * 1000:g} ms"
    if result.discarded:
        dataset.discarded.append(f"{words}: {result.discarded}")
        return
    if result.figures is None:
        return
    if result.doubtful:
        dataset.doubtful.append(f"{words}: {result.doubtful}")
    dataset.runs.setdefault(cell, []).append(result.figures)
    host = replace(result.host, steal=0.0)
    if host not in dataset.hosts:
        dataset.hosts.append(host)
    if result.versions and result.versions not in dataset.versions:
        dataset.versions.append(result.versions)


def _kind(result: RunResult) -> str:
    """Return what lab it was, and the link's properties that are not part of a cell."""
    lab, link = result.spec, result.spec.link
    kind = "Native speed, on namespaces"
    if lab.provider != "netns":
        # The first results do not say so, but all were of QEMU without KVM.
        accel = result.versions.get("accel", "tcg" if lab.provider == "qemu" else "")
        kind = f"Real Xen{f' {lab.xen}' if lab.xen is not Xen.V4_17 else ''}"
        kind += f", {'emulated CPU' if accel == 'tcg' else lab.provider}"
    impaired = [f"{name} {value}" for name in ("jitter", "loss", "queue") if (value := getattr(link, name))]
    return ", ".join([kind, *impaired])


def _way(kind: str, lab: Spec) -> str:
    """Return the way of a run of that `kind`: for xl's stream the one with the lab's IPsec, whatever its name."""
    if kind in WAYS and WAYS[kind].family is Family.XL:
        return next(way.key for way in WAYS.values() if way.family is Family.XL and way.ipsec is lab.ipsec)
    return kind


def _guest(result: RunResult) -> Guest:
    """Return the guest of the run's scenario; without one, what the run itself says of its guest."""
    if result.scenario and (asked := result.scenario.guest):
        return Guest(asked.disk, asked.memory, asked.pages or "", asked.writes)
    disk, memory = (result.figures.disk, result.figures.memory) if result.figures else (None, None)
    return Guest(disk.size if disk else 0, memory.size if memory else 0)
