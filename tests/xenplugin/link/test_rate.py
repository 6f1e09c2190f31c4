"""The rate limit that all connections share."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplugin.link.rate import BURST, SLICE, Pacer

COMMON = settings(max_examples=60)


@given(
    st.integers(1000, 10**9),
    st.integers(1, 32),
    st.lists(st.integers(1, SLICE), min_size=1, max_size=20),
    st.lists(st.floats(0, 0.01), min_size=1, max_size=20),
)
@settings(COMMON, max_examples=200)
def test_the_rate_holds_whatever_the_slices_and_the_callers(
    rate: int, callers: int, slices: list[int], idle: list[float]
) -> None:
    """On a clock of its own: `callers` each send a slice, sleep as they are told and are late now and then."""
    now = 0.0
    pacer = Pacer(rate, lambda: now)
    ready = [0.0] * callers  # when each may ask again
    sent, last = 0, 0.0
    seconds = 2 + 40 * SLICE / rate
    turn = 0
    while True:
        who = min(range(callers), key=ready.__getitem__)
        now = max(now, ready[who])
        if now > seconds:
            break
        count = slices[turn % len(slices)]
        if turn >= 3000:
            break
        leaves = now + pacer.due(count)
        assert leaves >= last
        sent, last = sent + count, leaves
        ready[who] = leaves + (idle[turn % len(idle)] / 1000 if turn % 7 == 0 else 0)
        turn += 1
        # never more than the rate and one burst; a slice may leave as soon as those before it have
        assert sent - count <= rate * (leaves + BURST) * 1.0001 + 1
    if turn < 3000:  # busy all the time: nearly all of the rate is used
        assert sent >= 0.95 * rate * last


def test_unused_time_is_kept_for_a_burst_only() -> None:
    now = 100.0
    pacer = Pacer(1000.0, lambda: now)
    assert pacer.due(500) == 0.0 and pacer.due(1) == pytest.approx(0.5)
    now = 200.0
    assert pacer.due(20) == 0.0 and pacer.due(1000) == pytest.approx(0.0) and pacer.due(1) == pytest.approx(1.0)


def test_waiting_sleeps_until_the_rate_allows_more(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("xenplugin.link.rate.time.sleep", slept.append)
    pacer = Pacer(100.0, lambda: 0.0)
    pacer.wait(50)
    pacer.wait(50)
    assert slept == [pytest.approx(0.5)]


def test_the_rate_can_be_changed_and_lifted() -> None:
    now = [0.0]
    pacer = Pacer(100.0, lambda: now[0])
    pacer.due(1000)
    assert pacer.due(1000) > 9
    pacer.set(1e6)
    assert pacer.due(1000) < 0.1  # what the old rate would have made it wait is forgotten
    assert pacer.due(1_000_000) < 0.1 < 0.9 < pacer.due(1)
    pacer.set(0)
    assert pacer.due(1 << 40) == 0
    pacer.set(1000.0)
    now[0] = 5.0
    pacer.due(1000)
    assert 0.9 < pacer.due(1) <= 1
