"""The table of a plan: columns, and what becomes of long text on a narrow terminal and in a file."""

from __future__ import annotations

import io
import re

import pytest

from xenplugin.results import CheckResult, Estimate, Expected, PlanResult
from xenplugin.ui import plan_table

FITS = "make it there: ip link add br0 type bridge"
LONG = "make it there: " + " ".join(f"word{number}" for number in range(30))
CHECKS = (
    CheckResult("bridges", "refuse", "hostb has no bridge br0", FITS),
    CheckResult("memory-below-maximum", "warn", "it has too little of " + "what it needs " * 12, LONG),
    CheckResult("target", "pass", "xvda: hostb:/" + "long" * 40),
)
ESTIMATE = Estimate(
    seconds=Expected(100.0, 200.0, 300.0),
    downtime=Expected(0.1, 0.2, 0.3),
    phases={},
    bytes_wire=Expected(1e9, 2e9, 3e9),
    bytes_memory=0,
    bytes_compared=0,
    rtt=0.12,
    rate=Expected(1e6, 2e6, 3e6),
    ready=1.0,
    streams=4,
    level=1,
    disks=(),
    assumptions=("how well its memory packs: 2.5 to 40 times is assumed, and its first move shows it",),
)
PLAN = PlanResult(guest="g1", uuid="", host="hostb", mode="live", checks=CHECKS, estimate=ESTIMATE)


class Terminal(io.StringIO):
    """A terminal without colours."""

    def isatty(self) -> bool:
        return True


def shown(out: io.StringIO) -> list[str]:
    plan_table.show(PLAN, out)
    return [re.sub("\x1b\\[[0-9;]*m", "", line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [80, 120])
def test_no_word_is_broken_on_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    lines = shown(Terminal())
    assert all(len(line) <= width for line in lines if "long" not in line), "\n".join(lines)
    column = lines[1].index("WHAT")
    (found,) = (number for number, line in enumerate(lines) if "too little" in line)
    assert lines[found + 1].startswith(" " * column + "what") or lines[found + 1].startswith(" " * column + "needs")
    hint = [line for line in lines if "word" in line]
    assert hint[0].startswith("    make it there: word0") and " ".join(hint).split() == LONG.split()


def test_a_hint_that_fits_stays_in_its_column_and_moves_before_it_is_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for width, indent in (("80", 31), ("60", 4)):
        monkeypatch.setenv("COLUMNS", width)
        assert " " * indent + FITS in shown(Terminal())


def test_in_a_file_no_line_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = shown(io.StringIO())
    column = lines[1].index("WHAT")
    assert " " * column + LONG in lines
    assert any(line.rstrip().endswith("needs what it needs") for line in lines)
