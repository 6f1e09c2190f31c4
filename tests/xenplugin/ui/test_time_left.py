"""The time left: the estimate's at first, the measurement's later, and no jump between."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.ui.time_left import time_left

seconds = st.floats(0.1, 1e5)


@given(seconds)
def test_it_begins_with_the_estimate_and_ends_with_nothing(expected: float) -> None:
    assert time_left(expected, 0.0, 0.0) == expected
    assert time_left(expected, 3.0, 0.0) == expected  # nothing has come yet: nothing is known
    assert time_left(expected, expected, 1.0) == 0.0


@given(seconds, st.floats(0, 1))
def test_a_right_estimate_counts_down(whole: float, share: float) -> None:
    assert time_left(whole, whole * share, share) == pytest.approx(whole * (1 - share), abs=1e-6 * whole)


@given(seconds, seconds, st.floats(0.34, 1))
def test_after_a_third_only_the_measurement_counts(expected: float, whole: float, share: float) -> None:
    assert time_left(expected, whole * share, share) == pytest.approx(whole * (1 - share), abs=1e-6 * whole)


@given(st.floats(0.2, 5), st.floats(0, 0.99))
def test_it_makes_no_jump(wrong: float, share: float) -> None:
    """A hundredth more that is done moves it by a few hundredths of the larger of both."""
    before, after = (time_left(wrong, at, at) for at in (share, share + 0.01))
    assert before is not None and after is not None
    assert abs(after - before) <= 0.06 * max(wrong, 1.0)


@given(seconds, seconds, st.floats(0, 1))
def test_it_lies_between_both(expected: float, whole: float, share: float) -> None:
    left = time_left(expected, whole * share, share)
    ends = [(1 - share) * expected, (1 - share) * whole]
    assert left is not None and min(ends) * (1 - 1e-6) - 1e-6 <= left <= max(ends) * (1 + 1e-6) + 1e-6


def test_without_an_estimate_it_is_the_measurement_once_there_is_one() -> None:
    assert time_left(None, 5.0, 0.0) is None
    assert time_left(None, 5.0, 0.5) == 5.0
