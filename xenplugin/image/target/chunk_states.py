"""Which chunks of a target are begun, done, durable; who is at work on it.

Strategy: one lock, held for bookkeeping only, never while an image is read or written. A chunk is entered as
started before it is touched, so that index() can tell what it may have read half-written. Work on one chunk
(a frame that was sent again after a link was lost) is done one after the other. Sets are ChunkSets: about a bit
for each chunk at the very worst.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from xenplugin.image.chunkset import ChunkSet


class Closed(Exception):
    """The target is being closed: no new work."""


class ChunkStates:
    """The state of all chunks; every method may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._active: list[tuple[int, int]] = []
        self._others = 0
        self._closing = False
        self._started = ChunkSet()
        self._done = ChunkSet()
        self._unsynced = ChunkSet()
        self._zero = ChunkSet()

    def begin(self, first: int, count: int) -> bool:
        """Enter chunks as started; returns whether some were already, which are then not done any more.

        Waits while others work on any of them. Raises Closed.
        """
        stop = first + count
        with self._changed:
            while any(a < stop and first < b for a, b in self._active) and not self._closing:
                self._changed.wait()
            if self._closing:
                raise Closed
            self._active.append((first, stop))
            again = self._started.add(first, count) < count
            if again:
                self._done.discard(first, count)
                self._unsynced.discard(first, count)
            return again

    def end(self, first: int, count: int, good: bool) -> None:
        """What begin() began is over; `good`: the chunks are done."""
        with self._changed:
            if good:
                self._done.add(first, count)
                self._unsynced.add(first, count)
            self._active.remove((first, first + count))
            self._changed.notify_all()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Keep the target open meanwhile. Raises Closed."""
        with self._changed:
            if self._closing:
                raise Closed
            self._others += 1
        try:
            yield
        finally:
            with self._changed:
                self._others -= 1
                self._changed.notify_all()

    def stop(self) -> None:
        """Let no more work begin, and wait for what goes on."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while self._active or self._others:
                self._changed.wait()

    def started(self, index: int) -> bool:
        """Whether chunk `index` may have been written to."""
        with self._changed:
            return index in self._started

    def split_started(self, first: int, count: int) -> list[tuple[int, int, bool]]:
        """`count` chunks from `first` on as runs (first, count, whether they may have been written to)."""
        with self._changed:
            return list(self._started.split(first, count))

    def found_zero(self, index: int) -> None:
        """The target has zeros in chunk `index`, unless it was started since."""
        with self._changed:
            self._zero.add(index)

    def split_zero(self, first: int, count: int) -> list[tuple[int, int, bool]]:
        """`count` chunks from `first` on as runs (first, count, whether found_zero() was told so)."""
        with self._changed:
            return list(self._zero.split(first, count))

    def done(self) -> int:
        """How many chunks are done."""
        with self._changed:
            return len(self._done)

    def take_unsynced(self) -> ChunkSet:
        """The chunks that were done since this was last asked: they are the caller's to make durable."""
        with self._changed:
            taken, self._unsynced = self._unsynced, ChunkSet()
            return taken

    def give_back(self, chunks: ChunkSet) -> None:
        """What was taken could not be put on record."""
        with self._changed:
            for first, count in chunks.runs():
                self._unsynced.add(first, count)
