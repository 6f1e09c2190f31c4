"""Least squares with lower bounds for the coefficients, and the error on held-out cells. Pure Python, no I/O."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
#: Cells that a model needs; with fewer there would be no more cells than coefficients.
LEAST_CELLS = 4
_FOLDS = 5


def least_squares(
    rows: Sequence[Sequence[float]], wanted: Sequence[float], least: Sequence[float] | None = None
) -> list[float]:
    """Return the coefficients, none below its bound in `least` (default 0), that bring `rows` closest to `wanted`.

    Errors are relative: a tenth counts the same in a short run and in a long one. Coefficients that would be below
    their bound are fixed to it, one at a time. Of columns that are multiples of each other, the first is used.
    """
    floors = least or [0.0] * len(rows[0])
    left = [
        value - sum(floor * each for floor, each in zip(floors, row, strict=True))
        for row, value in zip(rows, wanted, strict=True)
    ]
    active = list(range(len(rows[0])))
    weights = [1 / max(value, 1e-9) for value in wanted]
    while active:
        found = _solve(
            [[row[column] * weight for column in active] for row, weight in zip(rows, weights, strict=True)],
            [value * weight for value, weight in zip(left, weights, strict=True)],
        )
        worst = min(range(len(active)), key=lambda number: found[number])
        if found[worst] >= 0:
            known = dict(zip(active, found, strict=True))
            return [floor + known.get(column, 0.0) for column, floor in enumerate(floors)]
        del active[worst]
    return list(floors)


def _solve(rows: Sequence[Sequence[float]], wanted: Sequence[float]) -> list[float]:
    """Solve the normal equations by elimination; a column that depends on earlier ones gets 0."""
    count = len(rows[0])
    matrix = [
        [sum(row[i] * row[j] for row in rows) for j in range(count)]
        + [sum(row[i] * value for row, value in zip(rows, wanted, strict=True))]
        for i in range(count)
    ]
    scale = [matrix[i][i] for i in range(count)]
    for i in range(count):
        if matrix[i][i] <= 1e-10 * scale[i] or scale[i] == 0:
            matrix[i] = [0.0] * (count + 1)
            continue
        matrix[i] = [value / matrix[i][i] for value in matrix[i]]
        for other in range(count):
            if other != i and (factor := matrix[other][i]):
                matrix[other] = [a - factor * b for a, b in zip(matrix[other], matrix[i], strict=True)]
    return [matrix[i][count] if matrix[i][i] else 0.0 for i in range(count)]


@dataclass(frozen=True)
class Error:
    """The error of predictions as a share of the measured time: `median` and `worst` of `count` held-out cells."""

    median: float
    worst: float
    count: int


def held_out(
    cells: Sequence[T], fitted: Callable[[Sequence[T]], Callable[[T], float]], measured: Callable[[T], float]
) -> Error:
    """Return the error when each fifth of the cells (or each single cell, if there are few) is predicted by a model
    that is `fitted` to the others."""
    folds = _FOLDS if len(cells) >= 2 * _FOLDS else len(cells)
    order = list(cells)
    random.Random(1).shuffle(order)
    errors = []
    for fold in range(folds):
        model = fitted([cell for number, cell in enumerate(order) if number % folds != fold])
        errors += [abs(model(cell) / measured(cell) - 1) for cell in order[fold::folds]]
    errors.sort()
    return Error(errors[len(errors) // 2], errors[-1], len(errors))
