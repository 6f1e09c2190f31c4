"""What of a scenario is done already, and how long the rest will take. The results are the state: a run that has
one is not done again."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import LabUsageError
from lab.measure import results, typed_json
from lab.measure.results import Run, RunResult, ScenarioGuest, ScenarioInfo
from lab.measure.scenario import MADE, Scenario

#: Bit/s that the guesses take an unlimited link for.
_FAST = 250e6
_FIXED, _XEN_FIXED, _XEN_AROUND = 5.0, 240.0, 15.0  # seconds
#: Around a run on namespaces: seconds, and more for each byte of disk and memory, which are touched and compared.
_AROUND, _AROUND_BYTE = 5.0, 3 / 2**30


@dataclass(frozen=True)
class Kept:
    """A result of this scenario: its run, or what was discarded. `of`: what it was measured on and with, which must
    be the same for all runs that are compared (see `same`)."""

    run: Run
    seconds: float
    discarded: bool
    path: Path = Path()
    of: Mapping[str, Any] = field(default_factory=dict)


def kept(folder: Path, scenario: Scenario) -> list[Kept]:
    """The results in `folder` that are this scenario's, with the guest that it has now. Raises LabError."""
    found = []
    for path in sorted(folder.glob("*.json")):
        result = results.load(path)
        if result.run is not None and result.scenario == info(scenario):
            seconds = result.figures.seconds if result.figures else 0.0
            found.append(Kept(result.run, seconds, bool(result.discarded), path, _of(result)))
    return found


def _of(result: RunResult) -> dict[str, Any]:
    host, figures = result.host, result.figures
    found: dict[str, Any] = {"cpu": host.cpu, "cores": host.cores, "memory": host.memory}
    for name, each in (("disk", figures and figures.disk), ("memory", figures and figures.memory)):
        if each and each.sha256:
            found[f"the {name}'s content"] = each.sha256
    return found


def same(done: Sequence[Kept], here: Mapping[str, Any], disks: Mapping[int, str], memory: str | None) -> None:
    """Raises LabUsageError unless what is `done` was measured on the machine `here`, with these `disks` (SHA-256 by
    their data) and this `memory`: what is compared must differ in nothing but the way and the link."""
    for each in done:
        wanted = {**here, "the disk's content": disks.get(each.run.data), "the memory's content": memory}
        for name, value in each.of.items():
            if not each.discarded and wanted.get(name) not in (None, value):
                raise LabUsageError(
                    f"{each.path} was measured with another {name}: {value}, here {wanted[name]}",
                    hint="--results FOLDER: another folder for what is measured here and now",
                )


def info(scenario: Scenario) -> ScenarioInfo:
    """Return what a result says of its scenario."""
    guest = scenario.guest
    pages = guest.pages if guest.pages != MADE else None
    made = ScenarioGuest(guest.disk, guest.memory, guest.writes, pages)
    return ScenarioInfo(scenario.name, scenario.provider, made if _native(scenario) else None)


def about(scenario: Scenario) -> dict[str, Any]:
    """Return `info` as JSON has it."""
    found: dict[str, Any] = typed_json.write(info(scenario))
    return found


def left(scenario: Scenario, done: Sequence[Kept]) -> list[Run]:
    """The runs that have no result yet, in their order."""
    there = {each.run for each in done if not each.discarded}
    return [run for run in scenario.runs() if run not in there]


def _native(scenario: Scenario) -> bool:
    return scenario.provider == "netns"


class Estimate:
    """How long runs take: as the same cell did, else a guess, corrected by how wrong that was for the same way."""

    def __init__(self, scenario: Scenario, done: Sequence[Kept]) -> None:
        self._scenario = scenario
        self._seen: dict[Run, list[float]] = {}
        self._wrong: dict[str, list[float]] = {}
        self._around: list[float] = []
        for each in done:
            self.add(each.run, each.seconds, None)

    def add(self, run: Run, seconds: float, whole: float | None) -> None:
        """A run took `seconds`, and `whole` with all that is around it (None: not known)."""
        if seconds > 0:
            self._seen.setdefault(_cell(run), []).append(seconds)
            self._wrong.setdefault(run.way, []).append(seconds / self._guess(run))
        if whole is not None:
            self._around.append(whole - seconds)

    def seconds(self, runs: Sequence[Run]) -> float:
        """What `runs` will take in all."""
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
