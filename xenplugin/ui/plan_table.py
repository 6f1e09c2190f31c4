"""Shows a plan to a person: a row for each check, with what to do below those that do not pass."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.text import Text

from xenplugin.results import PlanResult
from xenplugin.ui import estimate_text, units

#: How each verdict is shown, and its style.
_VERDICTS = {"pass": ("pass", "green"), "warn": ("warning", "yellow"), "refuse": ("REFUSED", "bold red")}
_HEAD = ("CHECK", "RESULT", "WHAT WAS FOUND")


def show(result: PlanResult, out: TextIO) -> None:
    """Print the plan to `out`. Columns are aligned, and no line is broken, so that text copied from it can be
    typed."""
    console = Console(file=out, highlight=False, soft_wrap=True)
    console.print(Text(units.printable(f"{result.guest} to {result.host}, mode {result.mode}"), "bold"))
    names = max(len(_HEAD[0]), *(len(check.name) for check in result.checks))
    verdicts = max(len(_HEAD[1]), *(len(word) for word, _ in _VERDICTS.values()))
    console.print(Text(f"{_HEAD[0]:<{names}}  {_HEAD[1]:<{verdicts}}  {_HEAD[2]}", "bold"))
    for check in result.checks:
        word, style = _VERDICTS[check.verdict]
        row = Text(f"{check.name:<{names}}  ")
        row.append(f"{word:<{verdicts}}", style)
        console.print(row.append(f"  {units.printable(check.text)}"))
        if check.hint:
            console.print(Text(f"{'':{names + verdicts + 4}}{units.printable(check.hint)}", "dim"))
    if result.estimate is not None:
        console.print(Text(units.printable(estimate_text.line(result.estimate)), "bold"))
        for text in estimate_text.details(result.estimate):
            console.print(Text(f"  {units.printable(text)}"))
