"""experiment: do the runs of a scenario, continue them, or list them."""

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


@click.command(epilog=f"The lab comes with the scenarios {', '.join(scenario.known())}: docs/experiment.md.")
@click.argument("name", metavar="SCENARIO")
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the results, one JSON file per run (default: results/SCENARIO).",
)
@click.option("--lab", "lab_name", metavar="LAB", help="Name of the lab (default: a new one; for real Xen `lab`).")
@click.option("--way", "ways", multiple=True, metavar="WAY", help="Only this way of the scenario (repeatable).")
@click.option("--rtt", "rtts", multiple=True, metavar="TIME", help="Only this RTT of the scenario (repeatable).")
@click.option("--rate", "rates", multiple=True, metavar="RATE", help="Only this rate of the scenario (repeatable).")
@click.option("--data", multiple=True, metavar="SIZE", help="Only this size of data of the scenario (repeatable).")
@click.option("--repetitions", type=click.IntRange(1), metavar="N", help="Only the first N repetitions.")
@click.option("-N", "--dry-run", is_flag=True, help="Show the runs and how long they will take, and do nothing.")
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
    """Do the runs of SCENARIO, or continue with them.

    SCENARIO is a file or the name of a scenario that comes with the lab. Ctrl-C stops it. The same command
    continues, since runs that have a result are not repeated. Then use `xenlab report`.
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
            say(f"stopped; the results so far are in {folder}, and the same command continues")
            raise
        took = f" in {runner.duration(tally.seconds)}" if tally.runs else ""
        say(f"{tally.runs} runs done{took}, {tally.before} before, {tally.discarded} discarded: {folder}")
        say(f"next: xenlab report {folder}")


def _show(wanted: scenario.Scenario, folder: Path) -> None:
    """Print the runs of a scenario and the estimated time."""
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
