"""The runs of a folder of results, as the report and the model use them: cells of way, link and disk, and their
medians. What was discarded is counted and not used. A result of `xenlab run`, which belongs to no scenario, is a
run as well.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import results
from lab.errors import LabError
from lab.experiment.scenario import WAYS, XEN_WAYS

#: Ways in the order in which they are drawn and listed.
ORDER = (
    "existing", "existing-gcm", "plain", "paper-full", "paper-partial", "paper", "rsync", "zstd",
    "full", "static", "live",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One way on one link: `rtt` seconds, `rate` bit/s or None, `data` bytes of the disk (0: of no disk, or not
    known)."""

    way: str
    rtt: float
    rate: int | None
    data: int


@dataclass
class Set:
    """`runs`: the figures of each run, by cell. `native`: they are of namespaces, else of real Xen. `hosts`,
    `versions`: what they were measured on; `doubtful` runs count, `discarded` ones do not."""

    native: bool
    runs: dict[Cell, list[dict[str, Any]]] = field(default_factory=dict)
    hosts: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, str]] = field(default_factory=list)
    discarded: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)

    def title(self, way: str) -> str:
        """A way's name for people."""
        info = (WAYS if self.native else XEN_WAYS).get(way)
        return info.title if info else way

    @property
    def rates(self) -> list[int | None]:
        """Slowest first, unlimited last."""
        return sorted({cell.rate for cell in self.runs}, key=lambda rate: (rate is None, rate or 0))

    @property
    def disks(self) -> list[int]:
        """Bytes of data of the disks that there are; [0] where that is not known."""
        return sorted({cell.data for cell in self.runs if cell.data}) or [0]

    def rtts(self, rate: int | None) -> list[float]:
        """Seconds."""
        return sorted({cell.rtt for cell in self.runs if cell.rate == rate})

    def ways(self, rate: int | None, data: int) -> list[str]:
        """Those that were measured, in order."""
        return [way for way in ORDER if self.points(way, rate, data, "seconds")]

    def of(self, way: str, rtt: float, rate: int | None, data: int) -> list[dict[str, Any]]:
        """The runs of a cell; those of a way that is alike for all disks serve each of them."""
        for wanted in (data, 0, *self.disks):
            found = self.runs.get(Cell(way, rtt, rate, wanted))
            if found and (wanted in (data, 0) or (way in WAYS and WAYS[way].alike)):
                return found
        return []

    def median(self, way: str, rtt: float, rate: int | None, data: int, key: str = "seconds") -> float | None:
        """Of a figure; None where there is none."""
        values = [run[key] for run in self.of(way, rtt, rate, data) if run.get(key) is not None]
        return statistics.median(values) if values else None

    def points(self, way: str, rate: int | None, data: int, key: str) -> list[tuple[float, float]]:
        """(RTT in ms, median) of a figure."""
        found = ((rtt * 1000, self.median(way, rtt, rate, data, key)) for rtt in self.rtts(rate))
        return [(rtt, value) for rtt, value in found if value is not None]

    def spread(self, way: str, rate: int | None, data: int, key: str) -> list[tuple[float, float, float]]:
        """(RTT in ms, least, most) of a figure, where a cell has several runs."""
        found = []
        for rtt in self.rtts(rate):
            values = [run[key] for run in self.of(way, rtt, rate, data) if run.get(key) is not None]
            if len(values) > 1:
                found.append((rtt * 1000, min(values), max(values)))
        return found

    def phases(self, way: str, rtt: float, rate: int | None, data: int) -> dict[str, float]:
        """The phases of the run in the middle (of two: of the quicker one), seconds."""
        runs = [run for run in self.of(way, rtt, rate, data) if steps(run)]
        runs.sort(key=lambda run: float(run["seconds"]))
        return steps(runs[(len(runs) - 1) // 2]) if runs else {}


def steps(figures: dict[str, Any]) -> dict[str, float]:
    """A run's phases, whichever program told them."""
    told = figures.get("phases") or figures.get("steps") or figures.get("result", {}).get("phases")
    if told:
        return {str(name): float(value) for name, value in told.items()}
    if "disk_seconds" in figures:
        return {"disk": float(figures["disk_seconds"]), "memory": float(figures["seconds"])}
    return {}


def load(folders: Iterable[Path]) -> list[Set]:
    """All results in `folders`: those of namespaces, those of real Xen, whichever there are. Raises LabError."""
    native, xen = Set(True), Set(False)
    for folder in folders:
        for path in sorted(folder.glob("*.json")):
            _add(native, xen, results.load(path))
    found = [each for each in (native, xen) if each.runs]
    if not found:
        where = ", ".join(map(str, folders))
        raise LabError(f"there are no results in {where}", hint="xenlab experiment quick")
    return found


def _add(native: Set, xen: Set, values: dict[str, Any]) -> None:
    figures, lab = values["figures"], values["lab"]
    chosen = native if lab["provider"] == "netns" else xen
    link = lab["link"]
    run = figures.get("run", {})
    cell = Cell(values["kind"], link["rtt"], link["rate"], int(run.get("data", 0)))
    words = f"{chosen.title(cell.way)} at {cell.rtt * 1000:g} ms"
    if figures.get("discarded"):
        chosen.discarded.append(f"{words}: {figures['discarded']}")
        return
    if "seconds" not in figures:
        return
    if figures.get("doubtful"):
        chosen.doubtful.append(f"{words}: {figures['doubtful']}")
    chosen.runs.setdefault(cell, []).append(figures)
    for value, known in ((values["host"], chosen.hosts), (values["versions"], chosen.versions)):
        plain = {key: each for key, each in value.items() if key != "steal"}
        if plain and plain not in known:
            known.append(plain)
