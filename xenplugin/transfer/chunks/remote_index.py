"""The index of the destination's old content, as it arrives, and which blocks of a chunk need not be sent.

The index comes in chunk order and ahead of the chunks; a packer waits here for its chunk's part. Memory is bounded
because the destination sends no more than INDEX_AHEAD chunks beyond what it has received.
"""

from __future__ import annotations

import bisect
import threading

from xenplugin.errors import PeerError
from xenplugin.geometry import block_count, chunk_length
from xenplugin.image.chunkset import ChunkSet
from xenplugin.image.index.digest import zero_leaf
from xenplugin.wire.frames import LEAF, Index, IndexRun

#: Chunks whose INDEX the acceptor may send beyond the last chunk it has received.
INDEX_AHEAD = 16384


class RemoteIndex:
    """The index of the first `size` bytes of the destination's old content."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._frontier = 0
        self._leaves: dict[int, tuple[int, bytes]] = {}
        self._unneeded = ChunkSet()  # chunks whose index is still to come
        self._zero_starts: list[int] = []
        self._zero_stops: list[int] = []
        self._closed = False
        self._changed = threading.Condition()

    def add(self, frame: Index | IndexRun) -> None:
        """Add the next part. Raises PeerError if it does not follow the last one."""
        with self._changed:
            if frame.first != self._frontier:
                raise PeerError(f"the index continues at chunk {frame.first} instead of {self._frontier}")
            if isinstance(frame, Index):
                if len(self._leaves) > 2 * INDEX_AHEAD:
                    raise PeerError("the index runs too far ahead")
                for index, leaves in enumerate(frame.chunks, frame.first):
                    if index not in self._unneeded:
                        self._leaves[index] = leaves
                self._frontier += len(frame.chunks)
            else:
                if frame.zeros:
                    self._zero_starts.append(frame.first)
                    self._zero_stops.append(frame.first + frame.count)
                self._frontier += frame.count
            self._unneeded.discard(frame.first, self._frontier - frame.first)
            self._changed.notify_all()

    def known(self, index: int, leaves: bytes) -> int:
        """Return the map of the blocks of chunk `index` that the destination has, given the chunk's `leaves` now.
        Waits until its index has arrived; afterwards that part is forgotten."""
        with self._changed:
            self._changed.wait_for(lambda: self._frontier > index or self._closed)
            part = self._leaves.pop(index, None)
            if part is None and self._all_zero(index):
                part = (-1, b"")
        if part is None:
            return 0
        zero_map, others = part
        length = chunk_length(self._size, index)
        known = place = 0
        for block in range(block_count(length)):
            if zero_map >> block & 1:
                theirs = zero_leaf(min(65536, length - block * 65536))
            else:
                theirs = others[place : place + LEAF]
                place += LEAF
            if theirs == leaves[block * LEAF : (block + 1) * LEAF]:
                known |= 1 << block
        return known

    def forget(self, first: int, count: int) -> None:
        """Drop what is known of chunks that need no comparison because they are zeros at the source."""
        with self._changed:
            begin = max(first, self._frontier)
            self._unneeded.add(begin, first + count - begin)
            if count == 1:
                self._leaves.pop(first, None)
            else:
                for index in [i for i in self._leaves if first <= i < first + count]:
                    del self._leaves[index]

    def close(self) -> None:
        """Let callers that wait in `known` go on without the index."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _all_zero(self, index: int) -> bool:
        place = bisect.bisect_right(self._zero_starts, index) - 1
        return place >= 0 and index < self._zero_stops[place]
