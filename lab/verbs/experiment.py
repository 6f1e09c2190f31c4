"""experiment: a scenario's runs, done, gone on with, or listed."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lab.errors import LabUsageError
from lab.measure import plan, runner, scenario
from lab.verbs.common import progress


@click.command(epilog=f"With the lab come {', '.join(scenario.known())}: docs/experiment.md.")
@click.argument("name", metavar="SCENARIO")
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the results are kept, a JSON file each (default: results/SCENARIO).",
)
@click.option("--lab", "lab_name", metavar="LAB", help="Which lab (default: one of its own; on real Xen `lab`).")
@click.option("--way", "ways", multiple=True, metavar="WAY", help="Of the scenario's ways, this (repeatable).")
@click.option("--rtt", "rtts", multiple=True, metavar="TIME", help="Of its RTTs, this (repeatable).")
@click.option("--rate", "rates", multiple=True, metavar="RATE", help="Of its rates, this (repeatable).")
@click.option("--data", multiple=True, metavar="SIZE", help="Of its sizes of data, this (repeatable).")
@click.option("--repetitions", type=click.IntRange(1), metavar="N", help="Of its repetitions, the first N.")
@click.option("-N", "--dry-run", is_flag=True, help="Show the runs and how long they will take.")
def experiment(
    name: str,
    results: Path | None,
    lab_name: str | None,
    ways: tuple[str, ...],
    rtts: tuple[str, ...],
    rates: tuple[str, ...],
    data: tuple[str, ...],
    repetitions: int | None,
    dry_run: bool,
) -> None:
    """Do the runs of SCENARIO, a file or one that comes with the lab.

    Ctrl-C stops it; the same command goes on where it was, for what has a result is not done again. Then: `xenlab
    report`.
    """
    try:
        wanted = scenario.load(scenario.find(name)).only(ways, rtts, rates, data, repetitions)
    except ValueError as error:
        raise LabUsageError(str(error)) from None
    folder = results or Path("results") / wanted.name
    if dry_run:
        _show(wanted, folder)
        return
    with progress() as say:
        try:
            tally = runner.execute(wanted, folder, lab_name, say)
        except KeyboardInterrupt:
            say(f"stopped; what is done is in {folder}, and the same command goes on")
            raise
        took = f" in {runner.duration(tally.seconds)}" if tally.runs else ""
        say(f"{tally.runs} runs done{took}, {tally.before} before, {tally.discarded} discarded: {folder}")
        say(f"next: xenlab report {folder}")


def _show(wanted: scenario.Scenario, folder: Path) -> None:
    """The matrix and the estimate."""
    done = plan.kept(folder, wanted) if folder.is_dir() else []
    todo = plan.left(wanted, done)
    table = Table(box=SIMPLE_HEAD)
    for column, justify in (("way", "left"), ("runs", "right"), ("left", "right"), ("about", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    estimate = plan.Estimate(wanted, done)
    for way in wanted.ways:
        all_of_it = [run for run in wanted.runs() if run.way == way]
        rest = [run for run in todo if run.way == way]
        seconds = runner.duration(estimate.seconds(rest)) if rest else ""
        table.add_row(wanted.way(way).title, str(len(all_of_it)), str(len(rest)), seconds)
    total = runner.duration(estimate.seconds(todo)) if todo else ""
    table.add_row("all", str(len(wanted.runs())), str(len(todo)), total)
    Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 110).print(table)
