"""The model: more work never takes less time, and each range holds its middle."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.codec.adaptive_level import LevelSpeeds
from xenplugin.codec.compress import STORE
from xenplugin.migrate.forecast.model import (
    DiskAmounts,
    Machines,
    Memory,
    Move,
    Path,
    Prediction,
    Steps,
    added,
    predict,
)
from xenplugin.results import Expected
from xenplugin.transfer.measuring.host_load import HostLoad

MBIT = 1e6 / 8


def about(value: float, error: float = 0.1) -> Expected:
    return Expected(value * (1 - error), value, value * (1 + error))


def a_move(
    rate: float = 100 * MBIT, rtt: float = 0.12, send: float = 400e6, known: float = 0.0, *, memory: int = 0,
    ratio: float = 3.3, live: bool = True, level: int | None = None, cores: int = 4, running: float = 0.0,
) -> Move:  # fmt: skip
    """Return the move of a disk of 400 MB, over 120 ms and 100 Mbit/s."""
    return Move(
        Path(rtt, about(rate), 32 if rtt > 0.09 else 2, 1.0),
        Machines(
            LevelSpeeds(cores, other=1e-9), about(1.0), 0.5e-9, cores, HostLoad(running), HostLoad(running),
            level=level,
        ),
        DiskAmounts(send + known, about(send), known),
        Memory(memory, about(ratio, 0.3)) if memory else None,
        Steps(about(0.5, 0.5), about(0.1, 0.5), about(0.2, 0.5), about(0.1, 0.5)) if memory else None,
        live=live,
    )  # fmt: skip


amounts = st.floats(0, 1e12)
rates = st.floats(1e4, 1e10)
rtts = st.floats(0, 1)


def holds(found: Prediction) -> bool:
    values = [found.seconds, found.wire, *([found.downtime] if found.downtime else [])]
    return all(0 <= value.low <= value.middle <= value.high for value in values)


@given(amounts, amounts, rates, rtts, st.integers(0, 1 << 40), st.floats(1, 100), st.booleans())
def test_each_range_holds_its_middle(
    send: float, known: float, rate: float, rtt: float, memory: int, ratio: float, live: bool
) -> None:
    found = predict(a_move(rate, rtt, send, known, memory=memory, ratio=ratio, live=live))
    assert holds(found)
    assert sum(found.phases.values()) == pytest.approx(found.seconds.middle)
    assert min(found.phases.values()) >= 0


@given(amounts, amounts, rates, rtts, st.booleans())
def test_more_bytes_take_more_time(one: float, other: float, rate: float, rtt: float, guest: bool) -> None:
    less, more = sorted((one, other))
    memory = 1 << 30 if guest else 0
    first, second = (predict(a_move(rate, rtt, send, memory=memory)) for send in (less, more))
    assert first.seconds.middle <= second.seconds.middle * (1 + 1e-9)
    assert first.wire.middle <= second.wire.middle


@given(rates, rates, amounts)
def test_a_faster_link_takes_no_longer_for_bytes_that_are_stored(one: float, other: float, send: float) -> None:
    slow, fast = sorted((one, other))
    at = [predict(a_move(rate, 0.0, send, level=STORE)).seconds.middle for rate in (slow, fast)]
    assert at[1] <= at[0] * (1 + 1e-9)


@given(st.floats(0, 50), st.floats(0, 50))
def test_a_busy_host_takes_no_less(one: float, other: float) -> None:
    quiet, busy = (predict(a_move(10e9, send=10e9, running=load)).seconds.middle for load in sorted((one, other)))
    assert quiet <= busy * (1 + 1e-9)


def test_the_link_decides_where_it_is_slow() -> None:
    found = predict(a_move(100 * MBIT, 0.0, 400e6, level=STORE))
    assert found.phases["transfer"] == pytest.approx(400e6 / (100 * MBIT), rel=0.05)
    packed = predict(a_move(100 * MBIT, 0.0, 400e6))
    assert packed.wire.middle < 0.4 * 400e6
    assert packed.phases["transfer"] < 0.4 * found.phases["transfer"]


def test_what_the_far_host_has_costs_no_link() -> None:
    fresh, there = predict(a_move(send=400e6)), predict(a_move(send=0.0, known=400e6))
    assert there.wire.middle == 0 and there.seconds.middle < fresh.seconds.middle / 2


def test_a_wider_range_of_one_figure_widens_the_result() -> None:
    move = a_move()
    sure = predict(move).seconds
    unsure = predict(replace(move, path=replace(move.path, rate=about(100 * MBIT, 0.6)))).seconds
    assert unsure.low < sure.low and sure.high < unsure.high and unsure.middle == sure.middle


def test_a_link_that_may_be_faster_can_only_save_time() -> None:
    move = a_move()
    sure = replace(move, path=replace(move.path, rate=Expected(100 * MBIT, 100 * MBIT, 100 * MBIT)))
    faster = replace(move, path=replace(move.path, rate=Expected(100 * MBIT, 100 * MBIT, 400 * MBIT)))
    assert predict(faster).seconds.low < predict(sure).seconds.low
    assert predict(faster).seconds.high == predict(sure).seconds.high


def test_a_guest_stands_still_for_its_disks_only_when_it_does_not_move_live() -> None:
    live, static = (predict(a_move(memory=1 << 30, live=live)) for live in (True, False))
    assert live.downtime is not None and static.downtime is not None
    assert live.downtime.middle < 2 < 5 < static.downtime.middle
    assert list(live.phases) == ["connect", "disks", "memory", "stopped", "handover"]
    assert list(static.phases) == ["connect", "memory", "stopped", "handover"]
    assert predict(a_move()).downtime is None


def test_what_no_move_has_shown_takes_longer_on_a_slow_host() -> None:
    """Only if it both starts and hashes slowly: a log-in may wait for a name server."""

    def handover(ready: float, hash_seconds: float, assumed: str = "handover") -> float:
        move = a_move(memory=1 << 30)
        assert move.steps is not None
        return predict(
            replace(
                move,
                path=replace(move.path, ready=ready),
                machines=replace(move.machines, far_hash=hash_seconds),
                steps=replace(move.steps, assumed=frozenset({assumed})),
            )
        ).phases["handover"]

    usual = handover(0.5, 0.5e-9)
    assert handover(8.0, 20e-9) == pytest.approx(usual + 9 * 0.2)
    assert handover(8.0, 20e-9, "stopped") == usual
    assert handover(8.0, 0.5e-9) == handover(0.5, 20e-9) == usual


def test_one_machine_for_both_hosts_has_less_for_each() -> None:
    move = a_move(100e9, 0.0, 10e9, level=3, cores=2)
    both = replace(move, machines=replace(move.machines, shared=True))
    assert predict(both).seconds.middle > 1.2 * predict(move).seconds.middle


def test_the_level_follows_the_link() -> None:
    levels = [predict(a_move(rate)).level for rate in (1e5, 1e7, 1e8, 1e11)]
    assert levels == sorted(levels, reverse=True) and levels[0] == 6 and levels[-1] == STORE
    assert predict(a_move(1e11, level=6)).level == 6


def test_errors_of_several_disks_add_up_in_squares() -> None:
    found = added([Expected(6, 10, 13), Expected(17, 20, 24)])
    assert (found.low, found.middle, found.high) == (25, 30, 35)
    assert added([]) == Expected(0, 0, 0)
