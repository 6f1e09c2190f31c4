"""Version numbers for the chunks of a live image: how often each was sent with new content.

Two bytes for each chunk, in groups where any chunk has a version other than 0. Not thread-safe: the owner locks.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import groupby

from xenplugin.geometry import CHUNKS_PER_GROUP

#: The highest version.
LAST = (1 << 16) - 1


class Versions:
    """The version of each chunk, 0 at first. `total` is the sum over all chunks."""

    def __init__(self) -> None:
        self.total = 0
        self._groups: dict[int, array[int]] = {}

    def __getitem__(self, index: int) -> int:
        group = self._groups.get(index // CHUNKS_PER_GROUP)
        return group[index % CHUNKS_PER_GROUP] if group else 0

    def __setitem__(self, index: int, version: int) -> None:
        number, slot = divmod(index, CHUNKS_PER_GROUP)
        group = self._groups.get(number)
        if group is None:
            if not version:
                return
            group = self._groups[number] = array("H", bytes(2 * CHUNKS_PER_GROUP))
        self.total += version - group[slot]
        group[slot] = version

    def untouched(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield runs (first, count) of chunks with version 0, among `count` chunks from `first` on."""
        at, stop = first, first + count
        numbers = range(first // CHUNKS_PER_GROUP, (stop - 1) // CHUNKS_PER_GROUP + 1)
        held = sorted(number for number in self._groups if number in numbers)
        for number in held:
            begin = max(number * CHUNKS_PER_GROUP, at)
            end = min((number + 1) * CHUNKS_PER_GROUP, stop)
            for touched, run in groupby(range(begin, end), lambda index: bool(self[index])):
                if touched:
                    indexes = list(run)
                    if at < indexes[0]:
                        yield at, indexes[0] - at
                    at = indexes[-1] + 1
        if at < stop:
            yield at, stop - at
