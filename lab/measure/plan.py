"""Which runs of a scenario are finished already, and how long the rest will take.

The results in a folder are the only state: a run that has one there is not made again.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabUsageError
from lab.measure import results
from lab.measure.results import Host, Run, RunResult, ScenarioGuest, ScenarioInfo
from lab.measure.scenario import MADE, Scenario

#: Bit/s that an unlimited link is taken to have.
_FAST = 250e6
_FIXED, _XEN_FIXED, _XEN_AROUND = 5.0, 240.0, 15.0  # seconds
#: Around a run on namespaces: seconds, and more for each byte of disk and memory, which are touched and compared.
_AROUND, _AROUND_BYTE = 5.0, 3 / 2**30


@dataclass(frozen=True)
class Basis:
    """What must be the same for all runs that are compared: the machine, and SHA-256 of disk and memory.

    None: unknown, or not moved.
    """

    cpu: str | None = None
    cores: int | None = None
    host_memory: int | None = None
    disk: str | None = None
    memory: str | None = None


_LABELS = {
    "cpu": "CPU", "cores": "number of cores", "host_memory": "size of memory in the machine",
    "disk": "disk content", "memory": "memory content",
}  # fmt: skip


@dataclass(frozen=True)
class Kept:
    """A result of this scenario in `path`: its run, the seconds it took, and whether it was discarded."""

    run: Run
    seconds: float
    discarded: bool
    path: Path = Path()
    basis: Basis = Basis()


def kept(folder: Path, scenario: Scenario) -> list[Kept]:
    """Return the results in `folder` that are of this scenario with today's guest. Raises LabError."""
    found = []
    for path in sorted(folder.glob("*.json")):
        result = results.load(path)
        if result.run is not None and result.scenario == info(scenario):
            seconds = result.figures.seconds if result.figures else 0.0
            found.append(Kept(result.run, seconds, bool(result.discarded), path, _basis(result)))
    return found


def _basis(result: RunResult) -> Basis:
    host, figures = result.host, result.figures
    disk = figures.disk.sha256 if figures and figures.disk else None
    memory = figures.memory.sha256 if figures and figures.memory else None
    return Basis(host.cpu, host.cores, host.memory, disk, memory)


def same(done: Sequence[Kept], here: Host, disks: Mapping[int, str], memory: str | None) -> None:
    """Check that the runs `done` had the same basis as runs on the machine `here` would have.

    `disks`: SHA-256 of the disks by their data, `memory` that of the memory. Raises LabUsageError: what is compared
    may differ in the way and the link only.
    """
    for each in done:
        if each.discarded:
            continue
        wanted = Basis(here.cpu, here.cores, here.memory, disks.get(each.run.data), memory)
        for name, label in _LABELS.items():
            old, new = getattr(each.basis, name), getattr(wanted, name)
            if old is not None and new is not None and old != new:
                raise LabUsageError(
                    f"{each.path} was measured with another {label}: {old}, here {new}",
                    hint="--results FOLDER: another folder for what is measured here and now",
                )


def info(scenario: Scenario) -> ScenarioInfo:
    """Return what a result says of its scenario."""
    guest = scenario.guest
    pages = guest.pages if guest.pages != MADE else None
    made = ScenarioGuest(guest.disk, guest.memory, guest.writes, pages)
    return ScenarioInfo(scenario.name, scenario.provider, made if _native(scenario) else None)


def left(scenario: Scenario, done: Sequence[Kept]) -> list[Run]:
    """Return the runs that have no result yet, in their order."""
    there = {each.run for each in done if not each.discarded}
    return [run for run in scenario.runs() if run not in there]


def _native(scenario: Scenario) -> bool:
    return scenario.provider == "netns"


class Estimate:
    """Estimates how long runs take.

    A cell that was measured takes as long again. Other cells are guessed, and corrected by how wrong the guesses
    were for the same way.
    """

    def __init__(self, scenario: Scenario, done: Sequence[Kept]) -> None:
        self._scenario = scenario
        self._seen: dict[Run, list[float]] = {}
        self._wrong: dict[str, list[float]] = {}
        self._around: list[float] = []
        for each in done:
            self.add(each.run, each.seconds, None)

    def add(self, run: Run, seconds: float, whole: float | None) -> None:
        """Learn from a run that took `seconds`, and `whole` with everything around it (None: unknown)."""
        if seconds > 0:
            self._seen.setdefault(_cell(run), []).append(seconds)
            self._wrong.setdefault(run.way, []).append(seconds / self._guess(run))
        if whole is not None:
            self._around.append(whole - seconds)

    def seconds(self, runs: Sequence[Run]) -> float:
        """Return how long `runs` will take in all."""
        around = statistics.median(self._around) if self._around else self._guess_around()
        return sum(self._one(run) + around for run in runs)

    def _one(self, run: Run) -> float:
        if seen := self._seen.get(_cell(run)):
            return statistics.mean(seen)
        wrong: Mapping[str, list[float]] = self._wrong
        return self._guess(run) * (statistics.median(wrong[run.way]) if run.way in wrong else 1.0)

    def _guess_around(self) -> float:
        guest = self._scenario.guest
        native = _native(self._scenario)
        return _AROUND + _AROUND_BYTE * (guest.disk + guest.memory) if native else _XEN_AROUND

    def _guess(self, run: Run) -> float:
        if not _native(self._scenario):
            return _XEN_FIXED
        way, guest = self._scenario.way(run.way), self._scenario.guest
        whole = guest.disk if way.holes else run.data
        sent = way.sent.memory * guest.memory * way.memory + way.sent.data * whole * way.disk
        return _FIXED + 20 * run.rtt + 8 * sent / min(run.rate or _FAST, _FAST)


def _cell(run: Run) -> Run:
    return Run(run.way, run.rtt, run.rate, run.data, 0)
