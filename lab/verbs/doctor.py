"""doctor: show what this machine has and lacks for labs."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from lab.errors import MissingError
from lab.hosts.lifecycle import doctor as facts
from lab.hosts.spec import PROVIDERS
from lab.verbs.common import progress


@click.command()
@click.option("--provider", type=click.Choice(PROVIDERS), help="Check only what this provider needs.")
def doctor(provider: str | None) -> None:
    """Show what this machine lacks for a lab of each provider.

    Exit code 10: no lab (or no lab of the named provider) can run here; 12: the CPU of a running lab computes
    incorrectly.
    """
    wanted = [provider] if provider else list(PROVIDERS)
    with progress() as say:
        rows = facts.machine_facts()
        lacking = {each: facts.lacking(each) for each in wanted}
        for each, missing in lacking.items():
            rows += [facts.Fact(f"provider {each}", not missing, "can run here" if not missing else missing[0])]
            rows += [facts.Fact("", False, text) for text in missing[1:]]
        rows += facts.labs_facts(say)
    shown = Table(box=None, show_header=False, pad_edge=False)
    for row in rows:
        mark = {True: "[green]ok[/]", False: "[red]no[/]", None: ""}[row.good]
        shown.add_row(row.what, mark, row.text)
    Console().print(shown)
    if all(lacking.values()):
        raise MissingError(f"no lab of provider {' or '.join(wanted)} can run on this machine")
    facts.judge(rows)
