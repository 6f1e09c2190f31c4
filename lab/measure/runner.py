"""Makes the runs of a scenario that have no result yet, one after another, each judged by its own evidence.

A run whose link was late, or of whose CPU time others took too much, is kept as discarded, with the reason, and
made again, `tries` times in all; the last one then counts, marked as doubtful. A run that fails, for whatever
reason, is kept as discarded too; failing `tries` times ends the experiment. ctrl-C ends it at any moment:
finished runs stay.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from lab.errors import LabError
from lab.hosts.interface import Say
from lab.hosts.lifecycle.lab import Lab, open_lab
from lab.hosts.spec import Spec
from lab.measure import judge, plan
from lab.measure.native.worker import NativeWorker
from lab.measure.plan import Estimate
from lab.measure.results import Host, Measurement, Run, RunResult
from lab.measure.scenario import Scenario
from lab.measure.xen.worker import XenWorker
from lab.progress import Moving
from netem.errors import NetemError
from netem.profile import Profile

#: The name of the lab of namespaces, which is taken down after the runs.
NETNS_LAB = "experiment"
#: Failures of a run: the expected ones; programs that do not end or print nonsense; the machine's.
_EXPECTED = (LabError, NetemError)
_FAILURES = (*_EXPECTED, subprocess.SubprocessError, OSError, ValueError, LookupError)


class Worker(Protocol):
    """Makes single runs. `versions` of programs; SHA-256 of the `disks` by their data, and of the memory."""

    versions: dict[str, str]
    disks: dict[int, str]
    memory: str | None

    def around(self) -> AbstractContextManager[None]:
        """Prepare for several runs, which are made inside the block."""

    def run(self, lab: Lab, run: Run, say: Say) -> RunResult:
        """Make one run."""


@dataclass
class Summary:
    """Runs made, discarded, and finished `before`; `seconds` in all."""

    runs: int = 0
    discarded: int = 0
    before: int = 0
    seconds: float = 0.0


def execute(scenario: Scenario, folder: Path, lab_name: str | None, say: Say) -> Summary:
    """Make the runs of `scenario` that have no result in `folder`, and write theirs there.

    `lab_name`: which lab, if not the usual one. Raises LabError.
    """
    done = plan.kept(folder, scenario)
    todo = plan.left(scenario, done)
    summary = Summary(before=sum(not each.discarded for each in done))
    estimate = Estimate(scenario, done)
    if not todo:
        return summary
    began = time.monotonic()
    say(f"{scenario.title}: {len(todo)} runs, {summary.before} are done; about {duration(estimate.seconds(todo))}")
    native = scenario.provider == "netns"
    name = lab_name or (NETNS_LAB if native else "lab")
    worker: Worker = NativeWorker(scenario, f"work-{name}", say) if native else XenWorker()
    plan.same(done, Host.here(), worker.disks, worker.memory)
    first = _spec(scenario, todo[0], Spec(name=name, provider=scenario.provider))
    with open_lab(name, say, first) as lab, worker.around():
        try:
            lab.become(_spec(scenario, todo[0], lab.spec))
            for number, run in enumerate(todo):
                at = f"run {number + 1} of {len(todo)}, {run.words}"
                since = time.monotonic()
                with _ticking(say, at, estimate.seconds(todo[number:])):
                    seconds = _settle(scenario, lab, run, worker, folder, summary, say)
                estimate.add(run, seconds, time.monotonic() - since)
                summary.runs += 1
        finally:
            summary.seconds = time.monotonic() - began
            if native:
                lab.down()
    return summary


def _settle(
    scenario: Scenario, lab: Lab, run: Run, worker: Worker, folder: Path, summary: Summary, say: Say
) -> float:
    """Make `run` until its result can be kept; return the seconds that it took."""
    limits = scenario.limits
    for attempt in range(1, limits.tries + 1):
        wanted = _spec(scenario, run, lab.spec)
        running = Measurement(run.way, wanted)
        failure: Exception | None = None
        try:
            lab.become(wanted)
            result = worker.run(lab, run, say)
            reason = judge.doubt(result.figures, result.host, limits) if result.figures else ""
        except _FAILURES as error:
            failure, result = error, running.result(None, worker.versions)
            reason = f"it failed: {_message(error)}"
        last = attempt == limits.tries
        result = replace(result, scenario=plan.info(scenario), run=run, attempt=attempt)
        if reason:
            counts = last and failure is None
            result = replace(result, doubtful=reason) if counts else replace(result, discarded=reason)
            say(f"{run.words}: {reason}" + ("" if last else "; once more"))
        result.save(folder)
        if result.figures is not None and (not reason or last):
            say(f"{run.words}: {result.figures.seconds:.1f} s")
            return result.figures.seconds
        summary.discarded += 1
        if failure is not None and last:
            if isinstance(failure, _EXPECTED):
                raise failure
            raise LabError(f"{run.words}: {reason}") from failure
    raise AssertionError("a scenario has at least one try")


def _message(error: Exception) -> str:
    return error.message if isinstance(error, _EXPECTED) else f"{type(error).__name__}: {error}"


def duration(seconds: float) -> str:
    """Return a time for people: `40 s`, `12 min`, `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _spec(scenario: Scenario, run: Run, base: Spec) -> Spec:
    link = Profile(rtt=run.rtt, rate_bits=run.rate, seed=scenario.seed)
    return replace(base, link=link, ipsec=scenario.way(run.way).ipsec)


@contextmanager
def _ticking(say: Say, at: str, expected: float) -> Iterator[None]:
    """Show each second what is done, for how long, and how much of the `expected` seconds is left."""
    over, began = threading.Event(), time.monotonic()

    def tick() -> None:
        while not over.wait(1.0):
            passed = time.monotonic() - began
            say(Moving("experiment", f"{at}: {passed:.0f} s; about {duration(max(0, expected - passed))} left"))

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        say(Moving("experiment", ""))
