"""Reading a guest's log: ticks among other lines, the longest gap, and corruption."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lab.hosts.guest import trace

ON_A = """\
[    0.812] xen-blkfront: xvda: 1 GiB\r
1795410990.100000 rate disk 0\r
1795410991.000000 tick 1 1.50\r
1795410992.010000 tick 2 2.51\r
1795410992.500000 ok 1\r
1795410993.020000 tick 3 3.52\r
17954109"""
ON_B = """\
1795411004.320000 tick 4 4.80\r
1795411005.330000 tick 5 5.81\r
1795411005.500000 ok 2\r
"""


def test_a_guest_that_was_moved() -> None:
    seen = trace.parse(ON_A + "\n" + ON_B)
    assert [tick.number for tick in seen.ticks] == [1, 2, 3, 4, 5]
    assert seen.ticks[2] == trace.Tick(3, 1795410993.02, 3.52)
    assert abs(seen.downtime - 10.3) < 1e-6
    assert seen.rounds == 2 and not seen.corrupt and not seen.lost


def test_corrupt_files_are_listed() -> None:
    seen = trace.parse(ON_A.replace("ok 1", "CORRUPT disk usr/bin/true"))
    assert seen.corrupt == ("disk usr/bin/true",) and seen.rounds == 0


def test_ticks_that_are_missing_are_named() -> None:
    assert trace.parse(ON_A.replace("tick 2", "tock 2")).lost == [2]


def test_an_empty_trace_has_no_figures() -> None:
    seen = trace.parse("")
    assert seen.ticks == () and seen.downtime == 0 and seen.lost == []


@given(st.text(max_size=300))
def test_anything_may_stand_in_a_log(text: str) -> None:
    assert trace.parse(text).downtime >= 0


@given(st.lists(st.floats(0, 100), min_size=1, max_size=30), st.data())
def test_the_downtime_is_the_longest_gap(pauses: list[float], data: st.DataObject) -> None:
    wall, lines = 1.7e9, []
    for number, pause in enumerate(pauses):
        wall = round(wall + 1 + pause, 6)
        lines.append(f"{wall:.6f} tick {number} 1.00\n")
    cut = data.draw(st.integers(0, len(lines)))
    seen = trace.parse("".join(lines[cut:] + lines[:cut]))
    longest = max((later - earlier for earlier, later in _pairs(lines)), default=1.0)
    assert abs(seen.downtime - max(0.0, longest - 1)) < 1e-6


def _pairs(lines: list[str]) -> list[tuple[float, float]]:
    walls = [float(line.split()[0]) for line in lines]
    return list(pairwise(walls))


def test_the_kernel_breaks_into_a_line() -> None:
    """This happens when the guest is suspended; the tick counts nevertheless."""
    text = "1795425484.455367 tick 1503 497.04[  497.356224] Freezing user space processes\n"
    seen = trace.parse(text + "1795425502.618599 tick 1504 515.23\n")
    assert [tick.uptime for tick in seen.ticks] == [497.04, 515.23]
