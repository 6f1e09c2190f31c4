"""Least squares with lower bounds, and the error on cells that the model has not seen."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from lab.model.fit import held_out, least_squares


def test_known_coefficients_are_found() -> None:
    chance = random.Random(1)
    rows = [[1.0, chance.random(), chance.random() * 100] for _ in range(40)]
    assert least_squares(rows, [5 + 12 * b + 1.1 * c for _, b, c in rows]) == pytest.approx([5, 12, 1.1])


def test_no_coefficient_is_below_its_minimum() -> None:
    rows = [[1.0, float(x)] for x in range(1, 20)]
    assert least_squares(rows, [100.0 - x for x in range(1, 20)])[1] == 0
    assert least_squares(rows, [5 + 0.2 * x for x in range(1, 20)], [0.0, 0.8])[1] == 0.8


def test_a_column_of_zeros_gets_no_coefficient() -> None:
    assert least_squares([[1.0, 0.0], [1.0, 0.0]], [3.0, 3.0]) == pytest.approx([3.0, 0.0])


def test_of_equal_columns_the_first_gets_the_coefficient() -> None:
    assert least_squares([[2.0, 1.0], [2.0, 1.0]], [3.0, 3.0]) == pytest.approx([1.5, 0.0])


def test_the_error_is_that_on_cells_not_seen() -> None:
    """A model that remembers what it saw is perfect on that, and caught here."""

    def remembers(some: Sequence[int]) -> Callable[[int], float]:
        return lambda cell: float(cell) if cell in some else 2.0 * cell

    error = held_out(list(range(1, 21)), remembers, float)
    assert error.median == error.worst == 1.0 and error.count == 20


@pytest.mark.parametrize("count", [4, 9])
def test_of_few_cells_each_is_held_out_alone(count: int) -> None:
    seen = []

    def counts(some: Sequence[int]) -> Callable[[int], float]:
        seen.append(len(some))
        return float

    error = held_out(list(range(1, count + 1)), counts, float)
    assert seen == [count - 1] * count and error.count == count
