"""Totals from samples: every beginning of the order is spread, and the range holds the truth."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.geometry import CHUNK
from xenplugin.image.sparse import Run
from xenplugin.migrate.forecast.sampling import DataChunks, in_spread_order, ratio, total


@given(st.integers(0, 3000))
def test_each_number_comes_once(count: int) -> None:
    assert sorted(in_spread_order(count)) == list(range(count))


@pytest.mark.parametrize("count", [64, 1000, 4097, 100_000])
def test_every_beginning_is_spread_evenly(count: int) -> None:
    order = [number for number, _ in zip(in_spread_order(count), range(200), strict=False)]
    for seen in (16, 50, len(order)):
        places = sorted(order[:seen])
        gaps = [b - a for a, b in zip([0, *places], [*places, count], strict=True)]
        assert max(gaps) <= 4 * count / seen


def test_only_chunks_with_data_are_taken() -> None:
    runs = [Run(0, 3, True), Run(3, 2, False), Run(5, 100, True), Run(105, 3, False), Run(108, 1, False)]
    chunks = DataChunks(runs)
    assert chunks.count == 6
    assert sorted(chunks.spread()) == [3, 4, 105, 106, 107, 108]
    assert list(DataChunks([Run(0, 9, True)]).spread()) == []


def _maps(chance: random.Random, kind: str, count: int) -> list[int]:
    """Make up the bytes of each chunk that differ."""
    if kind == "spread":
        share = chance.random()
        return [CHUNK if chance.random() < share else 0 for _ in range(count)]
    if kind == "rare":
        return [65536 * chance.randint(1, 3) if chance.random() < 0.01 else 0 for _ in range(count)]
    found = [0] * count
    for _ in range(chance.randint(0, 8)):
        start = chance.randrange(count)
        for place in range(start, min(count, start + chance.randint(1, count // 8))):
            found[place] = CHUNK
    return found


@pytest.mark.parametrize("kind", ["spread", "rare", "runs"])
def test_the_range_holds_the_truth(kind: str) -> None:
    chance = random.Random(7)
    missed = 0
    for _ in range(100):
        differ = _maps(chance, kind, 4000)
        order = [
            place for place, _ in zip(in_spread_order(4000), range(chance.choice([60, 200, 800])), strict=False)
        ]
        found = total([differ[place] for place in order], 4000)
        assert 0 <= found.low <= found.middle <= found.high <= 4000 * CHUNK
        missed += not found.low <= sum(differ) <= found.high
    assert missed <= 10  # two standard errors: one in twenty


def test_what_was_compared_completely_has_no_error() -> None:
    found = total([5, 0, CHUNK], 3)
    assert (found.low, found.middle, found.high) == (CHUNK + 5.0,) * 3


def test_nothing_seen_is_anything() -> None:
    assert (total([], 4).low, total([], 4).high) == (0.0, 4.0 * CHUNK)
    assert total([], 0).high == 0.0


def test_what_was_never_seen_may_be_there() -> None:
    found = total([0] * 100, 10_000)
    assert found.middle == 0.0 < found.high < 0.05 * 10_000 * CHUNK


@given(st.lists(st.tuples(st.integers(1, CHUNK), st.integers(1, CHUNK)), min_size=1, max_size=40))
def test_a_ratio_lies_in_its_range(pairs: list[tuple[int, int]]) -> None:
    found = ratio([raw for raw, _ in pairs], [min(pair) for pair in pairs])
    assert found is not None and found.low <= found.middle <= found.high and found.middle >= 1.0


def test_there_is_no_ratio_of_nothing() -> None:
    assert ratio([], []) is None
