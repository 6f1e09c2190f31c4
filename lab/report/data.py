"""The runs of folders of results, as the report and the model use them: a set for each guest, in it cells of way,
link and data, and their medians. What was discarded is counted and not used. A result of `xenlab run`, which
belongs to no scenario, is a run as well.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.hosts.spec import Suite
from lab.measure import results
from lab.measure.scenario import WAYS, XEN_WAYS

#: Ways in the order in which they are drawn and listed.
ORDER = (
    "existing", "existing-gcm", "plain", "paper-full", "paper-partial", "paper", "rsync", "zstd",
    "full", "static", "live",
)  # fmt: skip
#: Seconds: less than that between a run's phases is nobody's.
_NOTHING = 0.05
_HINT = "xenlab experiment quick makes results/quick"


@dataclass(frozen=True)
class Guest:
    """Bytes; 0 where a result of real Xen does not say: it is the lab's own. `pages`: of what its memory was
    recorded; empty where it was made, or is real Xen's. `writes` a second, which the names leave out."""

    disk: int = 0
    memory: int = 0
    pages: str = ""
    writes: int = 0

    def __str__(self) -> str:
        recorded = f"memory (recorded, {self.pages})" if self.pages else "memory"
        known = ((self.disk, "disk"), (self.memory, recorded))
        return ", ".join(f"{binary(size)} {of}" for size, of in known if size) or "the lab's own guest"


def binary(size: int) -> str:
    """`4 GiB`, `160 MiB`"""
    return f"{size / 2**30:g} GiB" if size >= 1 << 30 else f"{size / 2**20:g} MiB"


@dataclass(frozen=True)
class Cell:
    """One way on one link: `rtt` seconds, `rate` bit/s or None, `data` bytes of files that the disk was to have (0:
    of no disk, or not known)."""

    way: str
    rtt: float
    rate: int | None
    data: int


@dataclass
class Set:
    """All of one `guest` in one kind of lab on one `machine` (its CPU): nothing else is ever compared. `runs`: the
    figures of each run, by cell. `native`: they are of namespaces, else of real Xen. `kind` for people. `tag` tells
    its figures' files from those of other sets. `hosts`, `versions`: what they were measured on; `doubtful` runs
    count, `discarded` ones do not."""

    native: bool
    guest: Guest = Guest()
    kind: str = ""
    machine: str = ""
    tag: str = ""
    runs: dict[Cell, list[dict[str, Any]]] = field(default_factory=dict)
    hosts: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, str]] = field(default_factory=list)
    discarded: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Kind and guest, for people."""
        on = f" ({self.machine})" if self.machine else ""
        return f"{self.kind}{on}: {self.guest}"

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
        """Bytes of files of the disks that there are; [0] where that is not known."""
        return sorted({cell.data for cell in self.runs if cell.data}) or [0]

    def disks_at(self, rate: int | None) -> list[int]:
        """Those of them that were moved at `rate`: what moves no disk says nothing of the others."""
        return sorted({cell.data for cell in self.runs if cell.data and cell.rate == rate}) or [0]

    def used(self, data: int) -> int | None:
        """What of the disk with `data` bytes of files is no hole, as it was measured."""
        disks = [run.get("disk") for cell, runs in self.runs.items() if cell.data == data for run in runs]
        found = [disk["data"] for disk in disks if disk]
        return round(statistics.median(found)) if found else None

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
            if found and (wanted in (data, 0) or (way in WAYS and WAYS[way].holes)):
                return found
        return []

    def median(self, way: str, rtt: float, rate: int | None, data: int, key: str = "seconds") -> float | None:
        """Of a figure; None where there is none."""
        values = self._values(way, rtt, rate, data, key)
        return statistics.median(values) if values else None

    def points(self, way: str, rate: int | None, data: int, key: str) -> list[tuple[float, float]]:
        """(RTT in ms, median) of a figure."""
        found = ((rtt * 1000, self.median(way, rtt, rate, data, key)) for rtt in self.rtts(rate))
        return [(rtt, value) for rtt, value in found if value is not None]

    def spread(self, way: str, rate: int | None, data: int, key: str) -> list[tuple[float, float, float]]:
        """(RTT in ms, least, most) of a figure, where a cell has several runs."""
        found = []
        for rtt in self.rtts(rate):
            values = self._values(way, rtt, rate, data, key)
            if len(values) > 1:
                found.append((rtt * 1000, min(values), max(values)))
        return found

    def _values(self, way: str, rtt: float, rate: int | None, data: int, key: str) -> list[float]:
        return [run[key] for run in self.of(way, rtt, rate, data) if run.get(key) is not None]

    def phases(self, way: str, rtt: float, rate: int | None, data: int) -> dict[str, float]:
        """The phases of the run in the middle (of two: their means), seconds. Their sum is the median."""
        runs = [run for run in self.of(way, rtt, rate, data) if steps(run)]
        runs.sort(key=lambda run: float(run["seconds"]))
        middle = runs[(len(runs) - 1) // 2 : len(runs) // 2 + 1]
        found: dict[str, float] = {}
        for run in middle:
            for name, value in steps(run).items():
                found[name] = found.get(name, 0.0) + value / len(middle)
        return found


def steps(figures: dict[str, Any]) -> dict[str, float]:
    """A run's phases, whichever program told them; what they leave of its time is its `start`. Of xl on real Xen
    only the whole is known; the copy of the disk before it is no part of it."""
    told = figures.get("phases") or figures.get("steps") or figures.get("result", {}).get("phases")
    if not told:
        return {"memory": float(figures["seconds"])} if "disk_seconds" in figures else {}
    found = {str(name): float(value) for name, value in told.items()}
    rest = figures["seconds"] - sum(found.values())
    return {"start": rest, **found} if rest > _NOTHING and "start" not in found else found


def load(folders: Sequence[Path]) -> list[Set]:
    """All results in `folders`, a set for each guest: first those of namespaces, then those of real Xen. Raises
    LabError."""
    sets: dict[tuple[str, Guest, str], Set] = {}
    for folder in folders:
        if not folder.is_dir():
            raise LabError(f"there is no folder {folder}", hint=_HINT)
        for path in sorted(folder.glob("*.json")):
            values = results.load(path)
            try:
                _add(sets, values)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
                raise LabError(f"{path} is not the result of a run: {why}") from None
    found = sorted((each for each in sets.values() if each.runs), key=lambda each: not each.native)
    if found:
        found[0].discarded += [line for each in sets.values() if not each.runs for line in each.discarded]
    else:
        raise LabError(f"there are no results in {', '.join(map(str, folders))}", hint=_HINT)
    named = set()
    if len({(each.kind, each.guest) for each in found}) == len(found):
        for each in found:
            each.machine = ""  # it tells nothing apart
    for each in found:
        kind, guest = "" if each.native else "xen", each.guest
        words = (binary(guest.disk), binary(guest.memory), guest.pages, each.machine) if kind in named else ()
        each.tag = re.sub(r"[^a-z0-9-]+", "", "-".join(filter(None, (kind, *words))).lower())
        while each.tag in named:
            each.tag += "x"
        named |= {kind, each.tag}
    return found


def _add(sets: dict[tuple[str, Guest, str], Set], values: dict[str, Any]) -> None:
    figures, lab = values["figures"], values["lab"]
    kind, guest, machine = _kind(values), _guest(figures), values["host"]["cpu"]
    chosen = sets.setdefault((kind, guest, machine), Set(lab["provider"] == "netns", guest, kind, machine))
    link = lab["link"]
    run = figures.get("run", {})
    cell = Cell(_way(values["kind"], lab["ipsec"]), link["rtt"], link["rate"], int(run.get("data", 0)))
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


def _kind(values: dict[str, Any]) -> str:
    """What lab it was, and what of its link is not told by a cell."""
    lab, link = values["lab"], values["lab"]["link"]
    kind = "Native speed, on namespaces"
    if lab["provider"] != "netns":
        # A result that does not say it is of QEMU without KVM, as all were at first.
        accel = values["versions"].get("accel", "tcg" if lab["provider"] == "qemu" else "")
        kind = f"Real Xen{' ' + lab['xen'] if lab['xen'] != '4.17' else ''}"
        kind += f", {'emulated CPU' if accel == 'tcg' else lab['provider']}"
    impaired = [f"{name} {link[name]}" for name in ("jitter", "loss", "queue") if link.get(name)]
    return ", ".join([kind, *impaired])


def _way(kind: str, ipsec: str) -> str:
    """xl's stream by the IPsec that it went through, whatever it was called."""
    suites = {Suite.OFF.value: "plain", Suite.PAPER.value: "existing", Suite.TODAY.value: "existing-gcm"}
    return suites[ipsec] if kind in suites.values() else kind


def _guest(figures: dict[str, Any]) -> Guest:
    """As its scenario had it; a run of the memory alone has a disk by that as well."""
    asked = (figures.get("scenario") or {}).get("guest") or {}
    disk, memory = ((figures.get(key) or {}).get("size", 0) for key in ("disk", "memory"))
    pages, writes = asked.get("pages", ""), asked.get("writes", 0)
    return Guest(asked.get("disk", disk), asked.get("memory", memory), pages, writes)
