"""Benchmarks: cases that are timed in turn, and targets that their figures must reach.

Figures are compared within one benchmark only. Its cases run one after another in each repetition, and medians are
taken, so a machine that steals half of the CPU does so to all of them. Runs are judged as those of experiments are
(lab.measure.judge): one from which the hypervisor took too much CPU time is repeated.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.errors import CheckError
from lab.hosts.interface import Say
from lab.measure import ballast, images, judge, programs, typed_json
from lab.measure.cpu import children_seconds
from lab.measure.images import Image
from lab.measure.judge import Limits
from lab.measure.results import Figures, Host
from netem.emulator.stats import Steal

FORMAT = 1
#: Free memory for one run, bytes.
NEEDED = 6 << 30
_LIMITS = Limits()
#: A case's own figures that are shown as it ends.
_SHOWN = ("bytes_wire", "level", "streams", "peak")

#: A case's own figures, by name; JSON.
Detail = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One run of a case: wall and CPU seconds, steal as a share of all CPU time (0..1), and its own figures."""

    wall: float
    cpu: float
    steal: float
    detail: Detail = field(default_factory=dict)


Trials = Mapping[str, Sequence[Trial]]


@dataclass(frozen=True)
class Case:
    """Something to time.

    `work` runs programs, waits for them and returns its own figures; if they have `wall` or `cpu` (seconds),
    these are the times. Before, `image` is read into the page cache, and `prepare` is called. Afterwards
    `arrived`, if given, must have the image's content, and is deleted. `repeat`: the most repetitions.
    """

    name: str
    image: Image
    work: Callable[[], Detail]
    arrived: Path | None = None
    prepare: Callable[[], None] = lambda: None
    repeat: int = 1 << 30


@dataclass(frozen=True)
class Target:
    """A figure that a benchmark must reach: `value` of its trials, at most `limit`, or with `least` at least."""

    figure: str
    value: Callable[[Trials], float]
    limit: float
    unit: str = "x"
    least: bool = False


@dataclass(frozen=True)
class Verdict:
    """A target with what was measured."""

    figure: str
    value: float
    asked: str
    reached: bool


@dataclass(frozen=True)
class Benchmark:
    """Cases and targets; `settings` are kept with the results."""

    name: str
    settings: Mapping[str, Any]
    cases: Sequence[Case]
    targets: Sequence[Target]


def execute(benchmark: Benchmark, repeat: int, folder: Path, say: Say) -> list[Verdict]:
    """Run the benchmark `repeat` times, every other time in the opposite order, and write its results to
    `folder`/NAME.json. Raises LabError, OSError."""
    trials: dict[str, list[Trial]] = {case.name: [] for case in benchmark.cases}
    for repetition in range(repeat):
        for case in benchmark.cases[:: -1 if repetition % 2 else 1]:
            if repetition < case.repeat:
                trials[case.name].append(_judged(case, say))
    verdicts = [_verdict(target, trials) for target in benchmark.targets]
    _save(benchmark, repeat, trials, verdicts, folder)
    return verdicts


def median(trials: Sequence[Trial], of: Callable[[Trial], float] = lambda trial: trial.wall) -> float:
    """Return the median of a figure of `trials`, by default of the wall time."""
    return statistics.median(map(of, trials))


def _judged(case: Case, say: Say) -> Trial:
    """Run a case until it can be believed; the last try counts in any case."""
    for attempt in range(1, _LIMITS.tries + 1):
        trial = _run(case)
        doubt = judge.doubt(Figures(trial.wall, steal=trial.steal), Host("", cores=1), _LIMITS)
        shown = [f"{key} {_short(trial.detail[key])}" for key in _SHOWN if key in trial.detail]
        times = f"{trial.wall:8.2f} s  CPU {trial.cpu:7.2f} s  steal {trial.steal:4.0%}"
        say(f"  {case.name:<26} {times}  {', '.join(shown)}")
        if not doubt:
            break
        say(f"  {case.name}: {doubt}" + ("; once more" if attempt < _LIMITS.tries else ""))
    return trial


def _run(case: Case) -> Trial:
    case.prepare()
    os.sync()
    images.warm(case.image.path)
    ballast.touch(NEEDED)
    before, steal, began = children_seconds(), Steal(), time.monotonic()
    detail = case.work()
    wall = detail.get("wall", time.monotonic() - began)
    cpu = detail.get("cpu", children_seconds() - before)
    trial = Trial(round(wall, 3), round(cpu, 3), round(steal.as_dict()["share"], 3), detail)
    if case.arrived is not None:
        if images.sha256(case.arrived) != case.image.sha256:
            raise CheckError(f"{case.name}: the image that arrived differs from the one that was sent")
        case.arrived.unlink()
    return trial


def _short(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e4 else f"{value / 1e6:.1f} MB"


def _verdict(target: Target, trials: Trials) -> Verdict:
    value = target.value(trials)
    reached = value >= target.limit if target.least else value <= target.limit
    asked = f"{'at least' if target.least else 'at most'} {target.limit:g}{target.unit}"
    return Verdict(target.figure, round(value, 3), asked, reached)


def _save(benchmark: Benchmark, repeat: int, trials: Trials, verdicts: list[Verdict], folder: Path) -> None:
    host = {key: value for key, value in typed_json.write(Host.here()).items() if key != "steal"}
    versions = programs.versions()
    values = {
        "format": FORMAT,
        "benchmark": benchmark.name,
        "command": f"python -m benchmarks {benchmark.name}",
        "host": host | {name: versions[name] for name in ("cryptography", "zstandard")},
        "settings": {**benchmark.settings, "repeat": repeat},
        "verdict": [asdict(verdict) for verdict in verdicts],
        "runs": {name: [asdict(trial) for trial in each] for name, each in trials.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{benchmark.name}.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
