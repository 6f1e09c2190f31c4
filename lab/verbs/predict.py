"""predict: what cannot be run here, from what was."""

from __future__ import annotations

import json
import sys
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
from lab.model.predict import Answer, Job, Model, fit, memory_ratio, site, too_few
from lab.model.speed import SERIAL, Hosts, check
from lab.report import data
from lab.verbs.common import progress
from netem import units
from xenplugin import bench as plugin_bench

#: disk, data, memory, rate, RTT, cores, guests, of which at a time
_CASES = (
    ("4gib", "1gb", "2gib", "100mbit", "120ms", 2, 1, 1),
    ("100gib", "40gb", "8gib", "1gbit", "120ms", 8, 1, 1),
    ("100gib", "40gb", "8gib", "10gbit", "20ms", 32, 1, 1),
    ("100gib", "40gb", "8gib", "10gbit", "200ms", 32, 1, 1),
    ("100gib", "40gb", "8gib", "10gbit", "120ms", 32, 1000, 20),
)

#: Bytes of libxl's stream for one of the guest's memory: headers, and pages that are sent again.
_STREAM = 1.02
_ASSUMED = (
    f"Assumed: each core as fast as one here, {SERIAL:.0%} of the plugin's work done by one thread at a time, "
    "memory as compressible as that of the first guest among the runs, data as in all of them, disks that keep up. "
    "Where the runs cannot tell a fixed time from one that grows with the bytes, it is taken to grow."
)
_BEYOND = "~: extrapolated, beyond the runs of that way in what is named below"
_AT_LEAST = "at least: no run met a bound of the way's own (its speed, its window), so none is reckoned with"


@click.command()
@click.argument("folders", metavar="RESULTS...", nargs=-1, type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--bench",
    "bench_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What `xenplugin bench --json` said of this machine (default: measured now).",
)
@click.option("--disk", metavar="SIZE", help="Of the guest's disk: 100gib.")
@click.option("--data", "used", metavar="SIZE", help="What of it is no hole, its file system's own included: 40gb.")
@click.option("--memory", metavar="SIZE", help="Of the guest.")
@click.option("--rate", metavar="RATE", help="Of the link: 10gbit.")
@click.option("--rtt", metavar="TIME", help="Of the link: 120ms.")
@click.option("--cores", type=click.IntRange(1, 4096), help="Of each host.")
@click.option("--guests", type=click.IntRange(1), help="So many guests like that.")
@click.option("--together", type=click.IntRange(1), help="Of them, so many at a time.")
def predict(folders: tuple[Path, ...], bench_file: Path | None, **asked: Any) -> None:  # fmt: skip
    """Say how long migrations would take that cannot be run here.

    The model is fitted to the runs in RESULTS (native speed), and its error on runs held out of the fit is told.
    """
    chosen = list(folders) or [Path("results/quick")]
    sets = [found for found in data.load(chosen) if found.native]
    machines = {(host.cpu, host.cores) for each in sets for host in each.hosts}
    if not machines:
        raise LabError("there are no runs at native speed among these", hint="xenlab experiment quick")
    if len(machines) > 1:
        names = " and ".join(f"{cpu}, {cores} cores" for cpu, cores in sorted(machines))
        raise LabUsageError(f"these runs are of several machines: {names}", hint="those of one at a time")
    figures = _bench(bench_file)
    models = fit(sets, Hosts(machines.pop()[1], figures, shared=True))
    tables = _models(models, too_few(sets)), _answers(models, figures, _cases(asked), memory_ratio(sets[:1]))
    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 130)
    console.print(*tables, sep="")
    console.print(_ASSUMED, style="dim")


def _bench(path: Path | None) -> dict[str, Any]:
    if path is None:
        with progress() as say:
            say("measuring this machine (xenplugin bench)")
            return plugin_bench.run(None, lambda event: None)
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        check(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else error
        hint = f"xenplugin bench --json >{path}"
        raise LabUsageError(f"{path} is not what `xenplugin bench --json` prints: {why}", hint=hint) from None
    return found


def _cases(asked: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The usual ones, or the one that was asked for."""
    names = ("disk", "used", "memory", "rate", "rtt", "cores", "guests", "together")
    if all(asked[name] is None for name in names):
        return list(_CASES)
    return [tuple(asked[name] or usual for name, usual in zip(names, _CASES[1], strict=True))]


def job_of(disk: str, used: str, memory: str, rate: str, rtt: str, ratio: float) -> Job:
    """A guest and a link in words. Raises LabUsageError, NetemError."""
    try:
        job = Job(
            size(memory) * _STREAM, size(disk), size(used), units.parse_time(rtt), units.parse_rate(rate), ratio
        )
    except ValueError as error:
        raise LabUsageError(str(error), hint="--disk 100gib --data 40gb --memory 8gib") from None
    if job.data > job.disk:
        raise LabUsageError(f"{used} of data do not fit a disk of {disk}")
    return job


def _models(models: list[Model], few: dict[str, int]) -> Table:
    table = Table(box=SIMPLE_HEAD, title="the model, fitted to the runs", title_justify="left")
    for name, justify in (
        ("way", "left"),
        ("seconds", "left"),
        ("cells", "right"),
        ("error on held-out runs", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for model in models:
        said = f"median {model.error.median:.0%}, worst {model.error.worst:.0%}"
        table.add_row(WAYS[model.way].title, model.words, str(model.cells), said)
    for way, cells in few.items():
        table.add_row(WAYS[way].title, f"too few: {LEAST_CELLS} cells are needed", str(cells), "")
    return table


def _answers(models: list[Model], figures: dict[str, Any], cases: list[tuple[Any, ...]], ratio: float) -> Table:
    table = Table(box=SIMPLE_HEAD, title="what it predicts", title_justify="left", caption_justify="left")
    table.add_column("way")
    columns, words = [], []
    for number, (disk, used, memory, rate, rtt, cores, guests, together) in enumerate(cases, 1):
        job = job_of(disk, used, memory, rate, rtt, ratio)
        several = f"; {guests} guests, {together} at a time" if guests > 1 else ""
        guest = f"{disk} disk, {used} of data, {memory} memory"
        column = [site(model, job, Hosts(cores, figures), guests, together) for model in models]
        beyond = list(dict.fromkeys(name for answer in column for name in answer.beyond))
        words.append(f"case {number}: {guest}; {rate}, {rtt}, {cores} cores{several}")
        words[-1] += f" (beyond the runs: {', '.join(beyond)})" if beyond else ""
        columns.append(column)
        table.add_column(f"case {number}", justify="right")
    for row, model in enumerate(models):
        moved = " (its memory alone)" if not WAYS[model.way].disk else ""
        moved = moved or ("" if WAYS[model.way].memory else " (its disk alone)")
        table.add_row(WAYS[model.way].title + moved, *(_said(column[row]) for column in columns))
    answers = [answer for column in columns for answer in column]
    notes = [_BEYOND] if any(answer.beyond for answer in answers) else []
    notes += [_AT_LEAST] if any(answer.unbounded for answer in answers) else []
    table.caption = "\n".join([*notes, *words])
    return table


def _said(answer: Answer) -> str:
    least = "at least " if answer.unbounded else ""
    return f"{'~ ' if answer.beyond else ''}{least}{duration(answer.seconds)}"
