"""Sets of chunks whose memory use does not grow with the image.

Strategy: groups (1 GiB) that are in the set as a whole are kept as runs, other groups as bit masks of
CHUNKS_PER_GROUP bits. A sparse image of a PiB is one run; scattered chunks cost about two bits each at worst. Not
thread-safe: the owner locks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from xenplugin.geometry import CHUNKS_PER_GROUP
from xenplugin.image.scan import bit_runs

_ALL = (1 << CHUNKS_PER_GROUP) - 1


class Runs:
    """A set of integers, kept as sorted runs that never touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, start: int, stop: int) -> int:
        """Add start..stop-1. Returns how many of them were new."""
        if stop <= start:
            return 0
        low = bisect_left(self._stops, start)
        high = bisect_right(self._starts, stop)
        had = 0
        new_start, new_stop = start, stop
        if low < high:
            for i in range(low, high):
                had += max(0, min(stop, self._stops[i]) - max(start, self._starts[i]))
            new_start = min(start, self._starts[low])
            new_stop = max(stop, self._stops[high - 1])
        self._starts[low:high] = [new_start]
        self._stops[low:high] = [new_stop]
        return stop - start - had

    def remove(self, value: int) -> None:
        """Remove `value`, which must be in the set."""
        i = bisect_right(self._starts, value) - 1
        start, stop = self._starts[i], self._stops[i]
        rest = [(a, b) for a, b in ((start, value), (value + 1, stop)) if a < b]
        self._starts[i : i + 1] = [a for a, _ in rest]
        self._stops[i : i + 1] = [b for _, b in rest]

    def __contains__(self, value: int) -> bool:
        i = bisect_right(self._starts, value) - 1
        return i >= 0 and value < self._stops[i]

    def __len__(self) -> int:
        """Return the number of runs, not of members."""
        return len(self._starts)

    def within(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the runs (start, stop) in order, limited to start..stop-1."""
        for i in range(bisect_right(self._stops, start), len(self._starts)):
            if self._starts[i] >= stop:
                return
            yield max(start, self._starts[i]), min(stop, self._stops[i])


class ChunkSet:
    """A set of chunk numbers; len() is the number of chunks."""

    def __init__(self) -> None:
        self._whole = Runs()
        self._masks: dict[int, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, index: int) -> bool:
        group, slot = divmod(index, CHUNKS_PER_GROUP)
        mask = self._masks.get(group)
        return bool(mask >> slot & 1) if mask is not None else group in self._whole

    def add(self, first: int, count: int = 1) -> int:
        """Add `count` chunks from `first` on. Returns how many were new."""
        before = self._count
        stop = first + count
        group, slot = divmod(first, CHUNKS_PER_GROUP)
        last, end = divmod(stop, CHUNKS_PER_GROUP)
        if group == last:
            self._add_mask(group, ((1 << count) - 1) << slot if count > 0 else 0)
            return self._count - before
        if slot:
            self._add_mask(group, _ALL >> slot << slot)
            group += 1
        self._add_groups(group, last)
        if end:
            self._add_mask(last, (1 << end) - 1)
        return self._count - before

    def discard(self, first: int, count: int = 1) -> None:
        """Remove `count` chunks from `first` on; those that are not in the set are skipped."""
        for begin, n in list(self.runs(first, first + count)):
            stop = begin + n
            self._count -= n
            for group in range(begin // CHUNKS_PER_GROUP, -(-stop // CHUNKS_PER_GROUP)):
                start = group * CHUNKS_PER_GROUP
                low, high = max(begin - start, 0), min(stop - start, CHUNKS_PER_GROUP)
                mask = self._masks.pop(group, _ALL)
                if mask == _ALL:
                    self._whole.remove(group)
                mask &= ~(((1 << high - low) - 1) << low)
                if mask:
                    self._masks[group] = mask

    def _add_mask(self, group: int, bits: int) -> None:
        old = self._masks.get(group)
        if old is None:
            if not bits or group in self._whole:
                return
            old = 0
        new = old | bits
        self._count += (new ^ old).bit_count()
        if new == _ALL:
            self._masks.pop(group, None)
            self._whole.add(group, group + 1)
        else:
            self._masks[group] = new

    def _add_groups(self, start: int, stop: int) -> None:
        if start >= stop:
            return
        for group in self._partial(start, stop):
            self._count -= self._masks.pop(group).bit_count()
        self._count += self._whole.add(start, stop) * CHUNKS_PER_GROUP

    def _partial(self, start: int, stop: int) -> list[int]:
        if stop - start < len(self._masks):
            return [group for group in range(start, stop) if group in self._masks]
        return sorted(group for group in self._masks if start <= group < stop)

    def runs(self, first: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield the chunks in the set from `first` to `stop` as maximal runs (first, count), in order.

        The set must not change during the iteration.
        """
        stop = 1 << 62 if stop is None else stop
        low, high = first // CHUNKS_PER_GROUP, -(-stop // CHUNKS_PER_GROUP)
        begin = end = -1
        for a, b in self._pieces(low, high):
            a, b = max(a, first), min(b, stop)
            if a >= b:
                continue
            if a == end:
                end = b
                continue
            if end > begin:
                yield begin, end - begin
            begin, end = a, b
        if end > begin:
            yield begin, end - begin

    def _pieces(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        size = CHUNKS_PER_GROUP
        partial = self._partial(low, high)
        p = 0
        for start, stop in self._whole.within(low, high):
            while p < len(partial) and partial[p] < start:
                yield from self._of_mask(partial[p])
                p += 1
            yield start * size, stop * size
        for group in partial[p:]:
            yield from self._of_mask(group)

    def _of_mask(self, group: int) -> Iterator[tuple[int, int]]:
        at = group * CHUNKS_PER_GROUP
        for a, b in bit_runs(self._masks[group]):
            yield at + a, at + b

    def split(self, first: int, count: int) -> Iterator[tuple[int, int, bool]]:
        """Split `count` chunks from `first` on into runs (first, count, whether they are in the set)."""
        at, stop = first, first + count
        for begin, n in self.runs(first, stop):
            if at < begin:
                yield at, begin - at, False
            yield begin, n, True
            at = begin + n
        if at < stop:
            yield at, stop - at, False
