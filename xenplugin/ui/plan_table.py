"""Shows a plan to a person: a row for each check, with what to do below those that do not pass."""

from __future__ import annotations

import textwrap
from typing import TextIO

from rich.console import Console
from rich.text import Text

from xenplugin.results import PlanResult
from xenplugin.ui import estimate_text, units

#: How each verdict is shown, and its style.
_VERDICTS = {"pass": ("pass", "green"), "warn": ("warning", "yellow"), "refuse": ("REFUSED", "bold red")}
_LEFT = 4  #: columns before a hint that does not fit behind the other columns
_NARROW = 20  #: columns of text at least
_HEAD = ("CHECK", "RESULT", "WHAT WAS FOUND")


def show(result: PlanResult, out: TextIO) -> None:
    """Print the plan to `out`. Columns are aligned. On a terminal, text that does not fit is broken between words
    and goes on in its column; a hint moves to the left before it is broken, because it may be typed. Elsewhere no
    line is broken."""
    console = Console(file=out, highlight=False, soft_wrap=True)
    width = console.width if console.is_terminal else None
    console.print(Text(units.printable(f"{result.guest} to {result.host}, mode {result.mode}"), "bold"))
    names = max(len(_HEAD[0]), *(len(check.name) for check in result.checks))
    verdicts = max(len(_HEAD[1]), *(len(word) for word, _ in _VERDICTS.values()))
    console.print(Text(f"{_HEAD[0]:<{names}}  {_HEAD[1]:<{verdicts}}  {_HEAD[2]}", "bold"))
    column = names + verdicts + 4
    for check in result.checks:
        word, style = _VERDICTS[check.verdict]
        first, *more = _lines(check.text, column, width)
        row = Text(f"{check.name:<{names}}  ")
        row.append(f"{word:<{verdicts}}", style)
        console.print(row.append(f"  {first}"))
        for line in more:
            console.print(Text(f"{'':{column}}{line}"))
        indent = column if width is None or column + len(check.hint) < width else _LEFT
        for line in _lines(check.hint, indent, width) if check.hint else ():
            console.print(Text(f"{'':{indent}}{line}", "dim"))
    if result.estimate is not None:
        for line in _lines(estimate_text.line(result.estimate), 0, width):
            console.print(Text(line, "bold"))
        for text in estimate_text.details(result.estimate):
            for number, line in enumerate(_lines(text, 4, width)):
                console.print(Text(f"{'    ' if number else '  '}{line}"))


def _lines(text: str, indent: int, width: int | None) -> list[str]:
    """Return `text` as lines that fit into `width` columns (None: any) behind `indent`; a longer word is not
    broken."""
    text = units.printable(text)
    if width is None:
        return [text]
    room = max(width - indent, _NARROW)
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
