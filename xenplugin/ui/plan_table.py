"""Shows a plan to a person: a table of all checks, with what to do below those that do not pass."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from xenplugin.results import PlanResult
from xenplugin.ui import units

#: How each verdict is shown, and its style.
_VERDICTS = {"pass": ("pass", "green"), "warn": ("warning", "yellow"), "refuse": ("REFUSED", "bold red")}


def show(result: PlanResult, out: TextIO) -> None:
    """Print the plan to `out`."""
    console = Console(file=out, highlight=False, soft_wrap=not out.isatty())
    console.print(Text(units.printable(f"{result.guest} to {result.host}, mode {result.mode}"), "bold"))
    # No edges and no padding at the ends, so that text copied from it can be typed.
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("CHECK", no_wrap=True)
    table.add_column("RESULT", no_wrap=True)
    table.add_column("WHAT WAS FOUND", overflow="fold")
    for check in result.checks:
        word, style = _VERDICTS[check.verdict]
        table.add_row(check.name, Text(word, style), Text(units.printable(check.text)))
        if check.hint:
            table.add_row("", "", Text(f"-> {units.printable(check.hint)}", "dim"))
    console.print(table)
