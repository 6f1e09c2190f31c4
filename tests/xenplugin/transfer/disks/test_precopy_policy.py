"""When a pre-copy has had enough rounds."""

from __future__ import annotations

from typing import Any

from xenplugin.transfer.disks.precopy_policy import PrecopyPolicy


def rounds_until_enough(left: Any, seconds: Any) -> int:
    """How many rounds after the first."""
    state = PrecopyPolicy()
    state.add_round(0, 10**9, 10.0)
    rounds = 0
    while not state.enough(left(rounds)):
        chunks = left(rounds)
        state.add_round(chunks, 10**8 if chunks is None else chunks << 20, seconds(rounds))
        rounds += 1
    return rounds


def test_precopy_ends_at_the_right_round() -> None:
    assert rounds_until_enough(lambda n: 0, lambda n: 1.0) == 0
    assert rounds_until_enough(lambda n: 1000 >> 3 * n, lambda n: 10.0 / 8**n) == 2  # 1000, 125, 15: 0.15 s
    assert rounds_until_enough(lambda n: 100, lambda n: 5.0) == 1  # as many again: it grows no less
    assert rounds_until_enough(lambda n: 1000 - n, lambda n: 5.0) == 1
    assert rounds_until_enough(lambda n: max(1, int(10**6 * 0.7**n)), lambda n: 10**4 * 0.7**n) == 8
    assert rounds_until_enough(lambda n: None, lambda n: 2.0) == 2  # compared, the same amount each time
    assert rounds_until_enough(lambda n: None, lambda n: 0.01) <= 2
