"""Totals of an image from a sample of its chunks, with their error. Pure.

Chunks are taken at even distances, in an order of which every beginning is spread over the whole image: so the
comparison may end at any chunk, and what it has seen is still a fair sample.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Iterator, Sequence

from xenplugin.geometry import CHUNK
from xenplugin.image.sparse import Run
from xenplugin.results import Expected

_GOLDEN = (math.sqrt(5) - 1) / 2
#: Steps near the golden section that are tried.
_TRIED = 64
#: Range of a total, in standard errors.
_SIGMAS = 2.0
#: What has never been seen in n chunks may still be in 3 of n (95 %, "rule of three").
_UNSEEN = 3.0


def in_spread_order(count: int) -> Iterator[int]:
    """Yield 0 to `count` - 1, each once, so that every beginning is spread evenly over all."""
    near = max(1, round(_GOLDEN * count))
    step = min(range(near, near + _TRIED), key=lambda step: _unevenness(step, count))
    return (place * step % count for place in range(count))


def _unevenness(step: int, count: int) -> float:
    """Return how unevenly the multiples of `step`, modulo `count`, are spread: the largest partial quotient of the
    continued fraction (all are 1 for the golden ratio). Infinite if they do not come to every number."""
    most, a, b = 0, count, step
    while b:
        most = max(most, a // b)
        a, b = b, a % b
    return most if a == 1 else math.inf


class DataChunks:
    """The chunks of an image that hold data, by number."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._firsts: list[int] = []
        self._stops: list[int] = []  # numbers, counted over all runs so far
        self.count = 0
        for run in runs:
            if not run.hole:
                self.count += run.count
                self._firsts.append(run.first)
                self._stops.append(self.count)

    def spread(self) -> Iterator[int]:
        """Yield the index in the image of each, in spread order."""
        for number in in_spread_order(self.count):
            place = bisect.bisect_right(self._stops, number)
            before = self._stops[place - 1] if place else 0
            yield self._firsts[place] + number - before


def total(seen: Sequence[int], count: int) -> Expected:
    """Return the sum over `count` chunks of a figure between 0 and CHUNK that is `seen` in a sample of them."""
    if not seen or not count:
        return Expected(0.0, 0.0, float(count * CHUNK))
    number = len(seen)
    if number >= count:
        exact = float(sum(seen))
        return Expected(exact, exact, exact)
    mean = sum(seen) / number
    spread = math.sqrt(sum((value - mean) ** 2 for value in seen) / max(1, number - 1))
    unseen = 1 - number / count
    error = _SIGMAS * spread * math.sqrt(unseen / number)
    least = _UNSEEN / number * unseen * CHUNK  # a chunk of another kind may just not have been seen
    low = max(mean - max(error, least), sum(seen) / count)
    high = min(mean + max(error, least), CHUNK)
    return Expected(count * low, count * mean, count * high)


def ratio(raw: Sequence[int], packed: Sequence[int]) -> Expected | None:
    """Return how many times smaller chunks of `raw` bytes became, now of `packed` bytes; None without any."""
    whole, small = sum(raw), sum(packed)
    if not whole or not small:
        return None
    middle = whole / small
    number = len(raw)
    residues = [(one - middle * other) ** 2 for one, other in zip(raw, packed, strict=True)]
    error = _SIGMAS * math.sqrt(sum(residues) / max(1, number - 1) * number) / small
    error = min(max(error, 0.02 * middle), 0.5 * middle)
    return Expected(max(middle - error, 0.5), middle, middle + error)
