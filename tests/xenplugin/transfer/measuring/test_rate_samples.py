"""The rate of a path from what arrived: slow start is left out, and what is not known is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.transfer.measuring.rate_samples import RateSamples


def measure(rtt: float, rate: float, seconds: float, first: float = 15_000.0) -> RateSamples:
    """Play slow start over a link of `rate` bytes/s: what a round trip brings doubles until the link is full."""
    samples, arrived, now, window = RateSamples(rtt), 0.0, 0.0, first
    step = 0.01
    while now < seconds and not samples.is_steady:
        now += step
        if now > rtt:
            arrived += min(rate, window / max(rtt, 0.001)) * step
            window *= 2 ** (step / max(rtt, 0.001))
            window = min(window, 1e12)
        samples.add(now, int(arrived))
    return samples


@pytest.mark.parametrize("rtt", [0.0, 0.02, 0.12, 0.2])
@pytest.mark.parametrize("rate", [1.25e6, 12.5e6, 25e6])
def test_slow_start_is_left_out(rtt: float, rate: float) -> None:
    found = measure(rtt, rate, 4.0).rate()
    assert found is not None
    assert found.middle == pytest.approx(rate, rel=0.1)
    assert found.low <= rate <= found.high


def test_it_ends_when_it_is_steady() -> None:
    assert measure(0.0, 12.5e6, 10.0).is_steady


def test_a_path_that_was_still_growing_may_carry_more() -> None:
    found = measure(0.2, 1.25e9, 1.5).rate()
    assert found is not None and found.high > 3 * found.middle


def test_windows_of_slow_start_do_not_count() -> None:
    """Over 200 ms two seconds are six windows, and half of them are slow start."""
    found = measure(0.2, 12.5e6, 2.0, first=460_000.0).rate()
    assert found is not None and found.middle == pytest.approx(12.5e6, rel=0.1)


def test_what_slow_start_has_lost_is_not_the_rate_of_the_path() -> None:
    samples, now, arrived = RateSamples(0.2), 0.0, 0.0
    for rate in (0.5e6, 4e6, 12.5e6, 5e6, 4e6, 7e6):
        for _ in range(30):
            now, arrived = now + 0.01, arrived + rate * 0.01
            samples.add(now, int(arrived))
    found = samples.rate()
    assert found is not None and found.middle == pytest.approx(12.5e6, rel=0.1)
    assert found.low < 8e6  # but it may be so


def test_nothing_arrived_is_not_known() -> None:
    samples = RateSamples(0.1)
    for place in range(100):
        samples.add(place / 50, 0)
    assert samples.rate() is None and not samples.is_steady


@given(st.lists(st.tuples(st.floats(0.001, 0.3), st.integers(0, 10**9)), max_size=60), st.floats(0, 0.5))
def test_any_samples_give_an_ordered_range_or_none(steps: list[tuple[float, int]], rtt: float) -> None:
    samples, now, arrived = RateSamples(rtt), 0.0, 0
    for seconds, count in steps:
        now, arrived = now + seconds, arrived + count
        samples.add(now, arrived)
    found = samples.rate()
    assert found is None or 0 < found.low <= found.middle <= found.high


@given(
    st.lists(st.tuples(st.floats(0.001, 0.3), st.integers(0, 10**9)), min_size=3, max_size=60), st.floats(1.0, 1e9)
)
def test_what_arrives_at_once_does_not_exceed_the_limit(steps: list[tuple[float, int]], limit: float) -> None:
    """Bytes that were held back arrive together, and a window with them is above the limit."""
    samples, now, arrived = RateSamples(0.0, limit), 0.0, 0
    for seconds, count in steps:
        now, arrived = now + seconds, arrived + count
        samples.add(now, arrived)
    found = samples.rate()
    assert found is None or 0 < found.low <= found.middle <= found.high <= limit
