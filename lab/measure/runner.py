"""Does the runs of a scenario that have no result yet, one after the other, each judged by its own evidence.

A run whose link was late, or of whose CPU time the hypervisor took too much, is kept as discarded, with the reason,
and done again, `tries` times in all; the last one then counts, marked as doubtful. A run that fails, whatever it
fails with, is kept as discarded too; failing `tries` times ends the experiment. ctrl-C ends it at any moment: what
is done stays done.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.fakexen import domain_stream
from lab.hosts.lab import Lab, open_lab
from lab.hosts.provider.base import Say
from lab.hosts.spec import Spec
from lab.measure import ballast, images, plan, recorded_memory
from lab.measure.cpu import metered
from lab.measure.native import hosts
from lab.measure.native.bench import Bench
from lab.measure.native.netns_ways import WAYS
from lab.measure.plan import Estimate
from lab.measure.results import Result, Run, host
from lab.measure.scenario import MADE, Limits, Scenario
from lab.measure.xen import hosts as xen_ways
from lab.progress import Moving
from netem.errors import NetemError
from netem.profile import Profile

#: Whose lab it is, where it is ours to take down.
NETNS_LAB = "experiment"
_PROGRAMS = {
    "openssh": ["ssh", "-V"],
    "openssl": ["openssl", "version"],
    "gzip": ["gzip", "--version"],
    "zstd": ["zstd", "--version"],
    "rsync": ["rsync", "--version"],
    "strongswan": ["swanctl", "--version"],
}
#: No packet may be later than so many times what one in a hundred may.
_STANDSTILL = 20
#: What a run can fail with: what is meant to be said; and programs that do not end or say nonsense, the machine.
_TOLD = (LabError, NetemError)
_FAILURES = (*_TOLD, subprocess.SubprocessError, OSError, ValueError, LookupError)


@dataclass
class Tally:
    """What was done. `seconds`: in all."""

    runs: int = 0
    discarded: int = 0
    before: int = 0
    seconds: float = 0.0


def execute(scenario: Scenario, folder: Path, lab_name: str | None, say: Say) -> Tally:
    """Do what is left of `scenario`; results go to `folder`. `lab_name`: which lab, if not the usual one. Raises
    LabError."""
    done = plan.kept(folder, scenario)
    todo = plan.left(scenario, done)
    tally = Tally(before=sum(not each.discarded for each in done))
    estimate = Estimate(scenario, done)
    if not todo:
        return tally
    began = time.monotonic()
    say(f"{scenario.title}: {len(todo)} runs, {tally.before} are done; about {duration(estimate.seconds(todo))}")
    name = lab_name or (NETNS_LAB if scenario.provider == "netns" else "lab")
    workers = _Native(scenario, f"work-{name}", say) if scenario.provider == "netns" else _Xen()
    plan.same(done, host(), workers.disks, workers.memory)
    first = _spec(scenario, todo[0], Spec(name=name, provider=scenario.provider))
    with open_lab(name, say, first) as lab, workers.around():
        try:
            lab.become(_spec(scenario, todo[0], lab.spec))
            for number, run in enumerate(todo):
                at = f"run {number + 1} of {len(todo)}, {run.words}"
                since = time.monotonic()
                with _ticking(say, at, lambda rest=todo[number:]: estimate.seconds(rest)):
                    seconds = _settle(scenario, lab, run, workers, folder, tally, say)
                estimate.add(run, seconds, time.monotonic() - since)
                tally.runs += 1
        finally:
            tally.seconds = time.monotonic() - began
            if scenario.provider == "netns":
                lab.down()
    return tally


def _settle(
    scenario: Scenario, lab: Lab, run: Run, workers: _Native | _Xen, folder: Path, tally: Tally, say: Say
) -> float:
    """Do `run` until its result can be kept. Its seconds."""
    limits = scenario.limits
    for attempt in range(1, limits.tries + 1):
        wanted = _spec(scenario, run, lab.spec)
        result = Result(run.way, wanted, workers.versions)
        about = {"scenario": plan.about(scenario), "run": run.as_dict(), "attempt": attempt}
        failure: Exception | None = None
        try:
            lab.become(wanted)
            done = workers.run(lab, run, say)
            result = done if isinstance(done, Result) else result
            figures = done.figures if isinstance(done, Result) else done
            doubt = judge(figures, result.as_dict()["host"], limits)
        except _FAILURES as error:
            failure, figures, doubt = error, {}, f"it failed: {_said(error)}"
        last = attempt == limits.tries
        result.figures = {**figures, **about}
        if doubt:
            result.figures["doubtful" if last and failure is None else "discarded"] = doubt
            say(f"{run.words}: {doubt}" + ("" if last else "; once more"))
        result.save(folder)
        if failure is None and (not doubt or last):
            if figures:
                say(f"{run.words}: {figures['seconds']:.1f} s")
            return float(figures["seconds"])
        tally.discarded += 1
        if failure is not None and last:
            if isinstance(failure, _TOLD):
                raise failure
            raise LabError(f"{run.words}: {doubt}") from failure
    raise AssertionError("a scenario has at least one try")


def _said(error: Exception) -> str:
    return error.message if isinstance(error, _TOLD) else f"{type(error).__name__}: {error}"


def judge(figures: dict[str, Any], host: dict[str, Any], limits: Limits) -> str:
    """Why a run is not to be believed; empty if it is. `host` as a result has it."""
    steal = figures.get("steal", host["steal"])
    late, lost = figures.get("lateness", {}), figures.get("emulator_lost", 0)
    others = figures.get("other_cpu_seconds", 0.0) / (host["cores"] * max(figures.get("seconds", 0.0), 0.001))
    if steal > limits.steal:
        return f"the hypervisor took {steal:.0%} of the CPU time (limit {limits.steal:.0%})"
    if others > limits.others:
        return f"other programs took {others:.0%} of the CPU time (limit {limits.others:.0%})"
    if late.get("p99", 0.0) > limits.late:
        return f"one packet in a hundred was {late['p99'] * 1000:.0f} ms late (limit {limits.late * 1000:g} ms)"
    if late.get("max", 0.0) > _STANDSTILL * limits.late:
        return f"the link stood still for {late['max']:.1f} s (limit {_STANDSTILL * limits.late:g} s)"
    return f"the emulator lost {lost} frames" if lost else ""


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _spec(scenario: Scenario, run: Run, base: Spec) -> Spec:
    link = Profile(rtt=run.rtt, rate=run.rate, seed=scenario.seed)
    return replace(base, link=link, ipsec=scenario.way(run.way).ipsec)


class _Native:
    """Runs on namespaces: native speed, an xl that plays. `folder`: where, whoever holds the lab."""

    def __init__(self, scenario: Scenario, folder: str, say: Say) -> None:
        guest = scenario.guest
        self.versions = _versions()
        self._writes = guest.writes
        self._images = {data: images.obtain(guest.disk, data, say) for data in (guest.usual, *guest.data)}
        first = self._images[guest.usual]
        recorded = None
        if guest.pages != MADE:
            recorded = recorded_memory.obtain(images.cache(), guest.memory, guest.pages, say)
        self._stream = domain_stream.obtain(images.cache(), guest.memory, first.path, recorded, say)
        self.disks, self.memory = {data: image.sha256 for data, image in self._images.items()}, self._stream.sha256
        self._plain = first
        self._folder = images.cache() / folder
        largest = max(image.data for image in self._images.values())
        whole = guest.disk if "paper-full" in scenario.ways else largest
        self._needed = 3 * whole + 2 * largest + 2 * guest.memory + (1 << 30)

    @contextmanager
    def around(self) -> Iterator[None]:
        hosts.release(self._folder)  # what a killed one left
        shutil.rmtree(self._folder, ignore_errors=True)
        try:
            with ballast.held(self._needed), metered() as self._meter:
                yield
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, lab: Lab, run: Run, say: Say) -> dict[str, Any]:
        image = self._images.get(run.data, self._plain)
        bench = Bench(lab, self._folder, image, self._stream, self._meter)
        try:
            bench.quiet(self._needed)
            figures = WAYS[run.way](bench, self._writes)
        finally:
            bench.clear()
        made = self._stream
        memory = {"size": made.memory, "stream": made.size, "ratio": made.ratio, "sha256": made.sha256}
        disk = {"size": image.size, "data": image.data, "sha256": image.sha256} if run.data else None
        return {**figures, "memory": memory, "disk": disk}


def _versions() -> dict[str, str]:
    """Of the programs that the ways use; what is not here is left out."""
    found = {name: version(name) for name in ("xenplugin", "zstandard", "cryptography")}
    for name, words in _PROGRAMS.items():
        with suppress(OSError):
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if match := re.search(r"\d+\.\d[\w.]*", done.stdout + done.stderr):
                found[name] = match[0]
    return found


class _Xen:
    """Runs on real Xen hosts (lab.measure.xen.hosts), which say their versions themselves."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}
        self.disks: dict[int, str] = {}
        self.memory: str | None = None

    @contextmanager
    def around(self) -> Iterator[None]:
        yield

    def run(self, lab: Lab, run: Run, say: Say) -> Result:
        return xen_ways.WAYS[run.way](lab, say)


@contextmanager
def _ticking(say: Say, at: str, rest: Any) -> Iterator[None]:
    """Show what is done, for how long, and what is left."""
    over, began, whole = threading.Event(), time.monotonic(), rest()

    def tick() -> None:
        while not over.wait(1.0):
            passed = time.monotonic() - began
            say(Moving("experiment", f"{at}: {passed:.0f} s; about {duration(max(0, whole - passed))} left"))

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        say(Moving("experiment", ""))
