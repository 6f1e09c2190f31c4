"""Version numbers for the chunks of a live image: how often each was sent with new content.

Two bytes for each chunk, in pages where any chunk has a version other than 0. Not thread-safe: the owner locks.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from xenplugin.image.chunkset import ChunkSet

#: The highest version.
LAST = (1 << 16) - 1
#: Chunks in a page: few, so that a version here and there does not cost much memory.
_PAGE = 64


class Versions:
    """The version of each chunk, 0 at first. `total` is the sum over all chunks."""

    def __init__(self) -> None:
        self.total = 0
        self._pages: dict[int, array[int]] = {}
        self._touched = ChunkSet()

    def __getitem__(self, index: int) -> int:
        page = self._pages.get(index // _PAGE)
        return page[index % _PAGE] if page else 0

    def __setitem__(self, index: int, version: int) -> None:
        number, slot = divmod(index, _PAGE)
        page = self._pages.get(number)
        if page is None:
            if not version:
                return
            page = self._pages[number] = array("H", bytes(2 * _PAGE))
        self.total += version - page[slot]
        page[slot] = version
        if version:
            self._touched.add(index)
        else:
            self._touched.discard(index)

    def untouched(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield runs (first, count) of chunks with version 0, among `count` chunks from `first` on."""
        return ((at, n) for at, n, touched in self._touched.split(first, count) if not touched)
