"""Sets of chunks whose memory use does not grow with the image.

Strategy: a tree of masks. A mask has CHUNKS_PER_GROUP bits, one for each chunk of a group; a node has one bit for
each of as many groups (or nodes) that are in the set as a whole, and the others that are in it in part. So a sparse
image of a PiB is a few numbers, scattered chunks cost about two bits each at worst, and no change looks at more
than some thousands of masks, however the set came about. Not thread-safe: the owner locks.
"""

from __future__ import annotations

from collections.abc import Iterator

from xenplugin.geometry import CHUNKS_PER_GROUP, MAX_IMAGE, chunk_count
from xenplugin.image.scan import bit_runs

_ALL = (1 << CHUNKS_PER_GROUP) - 1
_MOST = chunk_count(MAX_IMAGE)


def _bits(start: int, stop: int) -> int:
    return (1 << stop) - (1 << start)


class _Node:
    """A set of chunks in children of `unit` chunks each. `whole` has a bit for each child that is in the set as a
    whole; `parts` has the children that are in it in part: masks if they are groups, else nodes."""

    __slots__ = ("count", "parts", "unit", "whole")

    def __init__(self, unit: int) -> None:
        self.unit = unit
        self.count = 0
        self.whole = 0
        self.parts: dict[int, int | _Node] = {}

    def contains(self, index: int) -> bool:
        child, rest = divmod(index, self.unit)
        if self.whole >> child & 1:
            return True
        part = self.parts.get(child, 0)
        return part.contains(rest) if isinstance(part, _Node) else bool(part >> rest & 1)

    def change(self, start: int, stop: int, add: bool) -> None:
        """Add the chunks start..stop-1, or remove them."""
        if start >= stop:
            return
        child, rest = divmod(start, self.unit)
        last, end = divmod(stop, self.unit)
        if child == last:
            self._change_child(child, rest, end, add)
            return
        if rest:
            self._change_child(child, rest, self.unit, add)
            child += 1
        if child < last:
            self._change_whole(child, last, add)
        if end:
            self._change_child(last, 0, end, add)

    def _change_whole(self, child: int, last: int, add: bool) -> None:
        bits = _bits(child, last)
        for number in self._parts_of(child, last):
            self.count -= _size(self.parts.pop(number))
        if add:
            self.count += (bits & ~self.whole).bit_count() * self.unit
            self.whole |= bits
        else:
            self.count -= (bits & self.whole).bit_count() * self.unit
            self.whole &= ~bits

    def _change_child(self, child: int, start: int, stop: int, add: bool) -> None:
        was_whole = self.whole >> child & 1
        if was_whole and add:
            return
        part: int | _Node
        if self.unit == CHUNKS_PER_GROUP:
            part = _ALL if was_whole else self.parts.get(child, 0)
            before = _size(part)
            assert isinstance(part, int)
            part = part | _bits(start, stop) if add else part & ~_bits(start, stop)
        else:
            part = self.parts.get(child) or _Node(self.unit // CHUNKS_PER_GROUP)
            assert isinstance(part, _Node)
            if was_whole:
                part.whole, part.count = _ALL, self.unit
            before = part.count
            part.change(start, stop, add)
        size = _size(part)
        self.count += size - before
        self.parts.pop(child, None)
        self.whole &= ~(1 << child)
        if size == self.unit:
            self.whole |= 1 << child
        elif size:
            self.parts[child] = part

    def _parts_of(self, child: int, stop: int) -> list[int]:
        if stop - child < len(self.parts):
            return [number for number in range(child, stop) if number in self.parts]
        return sorted(number for number in self.parts if child <= number < stop)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the chunks in the set among start..stop-1 as runs (start, stop) in order, of which neighbours may
        touch."""
        if start >= stop:
            return
        low, high = start // self.unit, -(-stop // self.unit)
        parts = self._parts_of(low, high)
        place = 0
        for a, b in bit_runs((self.whole & _bits(low, high)) >> low):
            while place < len(parts) and parts[place] < low + a:
                yield from self._of_part(parts[place], start, stop)
                place += 1
            yield max((low + a) * self.unit, start), min((low + b) * self.unit, stop)
        for number in parts[place:]:
            yield from self._of_part(number, start, stop)

    def _of_part(self, child: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
        part, at = self.parts[child], child * self.unit
        low, high = max(start - at, 0), min(stop - at, self.unit)
        if isinstance(part, _Node):
            runs = part.pieces(low, high)
        else:
            runs = ((low + a, low + b) for a, b in bit_runs((part & _bits(low, high)) >> low))
        for a, b in runs:
            yield at + a, at + b


def _size(part: int | _Node) -> int:
    return part.count if isinstance(part, _Node) else part.bit_count()


class ChunkSet:
    """A set of chunk numbers; len() is the number of chunks."""

    def __init__(self) -> None:
        self._root = _Node(CHUNKS_PER_GROUP * CHUNKS_PER_GROUP)

    def __len__(self) -> int:
        return self._root.count

    def __contains__(self, index: int) -> bool:
        return self._root.contains(index)

    def add(self, first: int, count: int = 1) -> int:
        """Add `count` chunks from `first` on. Returns how many were new."""
        before = self._root.count
        self._root.change(first, first + count, add=True)
        return self._root.count - before

    def discard(self, first: int, count: int = 1) -> None:
        """Remove `count` chunks from `first` on; those that are not in the set are skipped."""
        self._root.change(first, first + count, add=False)

    def covers(self, first: int, count: int) -> bool:
        """Return whether all of `count` chunks from `first` on are in the set."""
        return next(self.runs(first, first + count), (0, 0))[1] == count

    def runs(self, first: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Yield the chunks in the set from `first` to `stop` as maximal runs (first, count), in order.

        The set must not change during the iteration.
        """
        begin = end = -1
        for a, b in self._root.pieces(first, _MOST if stop is None else stop):
            if a == end:
                end = b
                continue
            if end > begin:
                yield begin, end - begin
            begin, end = a, b
        if end > begin:
            yield begin, end - begin

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
