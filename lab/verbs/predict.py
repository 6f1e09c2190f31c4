"""predict: how long migrations take that cannot be run here, from runs that were."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lab.errors import LabError, LabUsageError
from lab.measure.runner import duration
from lab.measure.scenario import size
from lab.measure.ways import WAYS
from lab.model.fit import LEAST_CELLS
from lab.model.job import Job, Model, memory_ratio
from lab.model.predict import Answer, fit, site, too_few
from lab.model.speed import SERIAL, Hosts, check
from lab.report import data
from lab.verbs.common import progress
from netem import units
from xenplugin import bench as plugin_bench

#: Bytes of libxl's stream for each byte of the guest's memory: headers, and pages that are sent again.
_STREAM = 1.02
_ASSUMED = (
    f"Assumptions: each core is as fast as one of this machine, {SERIAL:.0%} of xenplugin's work is done by one "
    "thread at a time, memory compresses like that of the first guest among the runs, data like those of all runs, "
    "and disks are fast enough. Where the runs cannot separate a fixed time from one that grows with the bytes, it "
    "is assumed to grow."
)
_BEYOND = "~: extrapolated; the quantities outside the range of that way's runs are listed below"
_AT_LEAST = "at least: no run met a limit of the way's own (its speed, its window), so none is assumed"


@dataclass(frozen=True)
class Case:
    """What to predict: a guest and a link in the words of the command line, `cores` of each host, and how many
    `guests` like that, `together` at a time. `used`: the part of the disk that is not holes."""

    disk: str
    used: str
    memory: str
    rate: str
    rtt: str
    cores: int
    guests: int = 1
    together: int = 1

    @property
    def words(self) -> str:
        """Return a description for people."""
        several = f"; {self.guests} guests, {self.together} at a time" if self.guests > 1 else ""
        guest = f"{self.disk} disk, {self.used} of data, {self.memory} memory"
        return f"{guest}; {self.rate}, {self.rtt}, {self.cores} cores{several}"

    def job(self, ratio: float) -> Job:
        """Return the migration of one guest whose memory zstd level 1 compresses by `ratio`. Raises LabUsageError,
        NetemError."""
        try:
            memory, disk, used = size(self.memory) * _STREAM, size(self.disk), size(self.used)
            job = Job(memory, disk, used, units.parse_time(self.rtt), units.parse_rate(self.rate), ratio)
        except ValueError as error:
            raise LabUsageError(str(error), hint="--disk 100gib --data 40gb --memory 8gib") from None
        if job.data > job.disk:
            raise LabUsageError(f"{self.used} of data do not fit on a disk of {self.disk}")
        return job


_CASES = (
    Case("4gib", "1gb", "2gib", "100mbit", "120ms", 2),
    Case("100gib", "40gb", "8gib", "1gbit", "120ms", 8),
    Case("100gib", "40gb", "8gib", "10gbit", "20ms", 32),
    Case("100gib", "40gb", "8gib", "10gbit", "200ms", 32),
    Case("100gib", "40gb", "8gib", "10gbit", "120ms", 32, 1000, 20),
)


@click.command()
@click.argument("folders", metavar="RESULTS...", nargs=-1, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--bench",
    "bench_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Output of `xenplugin bench --json` on this machine (default: measured now).",
)
@click.option("--disk", metavar="SIZE", help="Size of the guest's disk: 100gib.")
@click.option(
    "--data", "used", metavar="SIZE", help="Part of the disk that is not holes, file system included: 40gb."
)
@click.option("--memory", metavar="SIZE", help="Size of the guest's memory: 8gib.")
@click.option("--rate", metavar="RATE", help="Rate of the link: 10gbit.")
@click.option("--rtt", metavar="TIME", help="Round-trip time of the link: 120ms.")
@click.option("--cores", type=click.IntRange(1, 4096), help="Cores of each host.")
@click.option("--guests", type=click.IntRange(1), help="Number of guests of that kind.")
@click.option("--together", type=click.IntRange(1), help="Number of guests that are migrated at a time.")
def predict(folders: tuple[Path, ...], bench_file: Path | None, **asked: Any) -> None:  # fmt: skip
    """Predict how long migrations take that cannot be run here.

    The model is fitted to the runs in RESULTS (native speed); its error is measured on runs held out of the fit.
    """
    chosen = list(folders) or [Path("results/quick")]
    datasets = [found for found in data.load(chosen) if found.native]
    machines = {(host.cpu, host.cores) for dataset in datasets for host in dataset.hosts}
    if not machines:
        raise LabError("none of these runs is at native speed", hint="xenlab experiment quick")
    if len(machines) > 1:
        names = " and ".join(f"{cpu}, {cores} cores" for cpu, cores in sorted(machines))
        raise LabUsageError(f"these runs are of several machines: {names}", hint="name the results of one machine")
    given = {name: value for name, value in asked.items() if value is not None}
    cases = [replace(_CASES[1], **given)] if given else _CASES
    ratio = memory_ratio(datasets[:1])
    jobs = [case.job(ratio) for case in cases]
    figures = _bench(bench_file)
    models = fit(datasets, Hosts(machines.pop()[1], figures, shared=True))
    answers = [
        [site(model, job, Hosts(case.cores, figures), case.guests, case.together) for model in models]
        for case, job in zip(cases, jobs, strict=True)
    ]
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 130)
    console.print(_models(models, too_few(datasets)), _answers(models, cases, answers), sep="")
    console.print(_ASSUMED, style="dim")


def _bench(path: Path | None) -> dict[str, Any]:
    if path is None:
        with progress() as say:
            say("measuring this machine (xenplugin bench)")
            return plugin_bench.run(None, lambda event: None).as_json()
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        check(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else error
        hint = f"xenplugin bench --json >{path}"
        raise LabUsageError(f"{path} is not the output of `xenplugin bench --json`: {why}", hint=hint) from None
    return found


def _models(models: Sequence[Model], few: dict[str, int]) -> Table:
    table = Table(box=SIMPLE_HEAD, title="the model, fitted to the runs", title_justify="left")
    table.add_column("way")
    table.add_column("seconds")
    table.add_column("cells", justify="right")
    table.add_column("error on held-out runs", justify="right")
    for model in models:
        error = f"median {model.error.median:.0%}, worst {model.error.worst:.0%}"
        table.add_row(WAYS[model.way].title, model.words, str(model.cells), error)
    for way, cells in few.items():
        table.add_row(WAYS[way].title, f"too few: {LEAST_CELLS} cells are needed", str(cells), "")
    return table


def _answers(models: Sequence[Model], cases: Sequence[Case], answers: Sequence[Sequence[Answer]]) -> Table:
    """Return a table with a row for each model and a column for each case; `answers` are by case."""
    table = Table(box=SIMPLE_HEAD, title="what it predicts", title_justify="left", caption_justify="left")
    table.add_column("way")
    words = []
    for number, (case, column) in enumerate(zip(cases, answers, strict=True), 1):
        table.add_column(f"case {number}", justify="right")
        beyond = list(dict.fromkeys(name for answer in column for name in answer.beyond))
        outside = f" (beyond the runs: {', '.join(beyond)})" if beyond else ""
        words.append(f"case {number}: {case.words}{outside}")
    for row, model in enumerate(models):
        way = WAYS[model.way]
        part = "" if way.disk and way.memory else f" (its {'disk' if way.disk else 'memory'} alone)"
        table.add_row(way.title + part, *(_time(column[row]) for column in answers))
    given = [answer for column in answers for answer in column]
    notes = [_BEYOND] if any(answer.beyond for answer in given) else []
    notes += [_AT_LEAST] if any(answer.unbounded for answer in given) else []
    table.caption = "\n".join([*notes, *words])
    return table


def _time(answer: Answer) -> str:
    least = "at least " if answer.unbounded else ""
    return f"{'~ ' if answer.beyond else ''}{least}{duration(answer.seconds)}"
