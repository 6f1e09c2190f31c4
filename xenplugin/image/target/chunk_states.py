"""The state of each chunk of a target (started, done, durable), and which work is going on.

Strategy: one lock, held for bookkeeping only, never while an image is read or written. A chunk is marked as started
before it is written to, so that index() can tell which chunks it may have read half-written. Work on the same chunk
(a frame that was sent again after its connection was lost) is serialized. The sets are ChunkSets: about two bits
for each chunk at worst.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from xenplugin.image.chunkset import ChunkSet


class TargetClosed(Exception):
    """The target is being closed; no work may begin."""


class ChunkStates:
    """The state of all chunks of a target. Every method may be called from any thread."""

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
        """Mark chunks as started. Returns whether any was started before; none of them counts as done any more.

        Waits while another thread works on any of them. Raises TargetClosed.
        """
        stop = first + count
        with self._changed:
            while any(a < stop and first < b for a, b in self._active) and not self._closing:
                self._changed.wait()
            if self._closing:
                raise TargetClosed
            self._active.append((first, stop))
            again = self._started.add(first, count) < count
            if again:
                self._done.discard(first, count)
                self._unsynced.discard(first, count)
            return again

    def end(self, first: int, count: int, good: bool) -> None:
        """End the work that begin() began; `good`: the chunks are done."""
        with self._changed:
            if good:
                self._done.add(first, count)
                self._unsynced.add(first, count)
            self._active.remove((first, first + count))
            self._changed.notify_all()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Keep the target open inside the `with` block. Raises TargetClosed."""
        with self._changed:
            if self._closing:
                raise TargetClosed
            self._others += 1
        try:
            yield
        finally:
            with self._changed:
                self._others -= 1
                self._changed.notify_all()

    def stop(self) -> None:
        """Let no more work begin, and wait until all work has ended."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while self._active or self._others:
                self._changed.wait()

    def started(self, index: int) -> bool:
        """Return whether chunk `index` may have been written to."""
        with self._changed:
            return index in self._started

    def split_started(self, first: int, count: int) -> list[tuple[int, int, bool]]:
        """Split `count` chunks from `first` on into runs (first, count, whether they may have been written to)."""
        with self._changed:
            return list(self._started.split(first, count))

    def found_zero(self, index: int) -> None:
        """Note that the target has zeros in chunk `index`, unless it was started since."""
        with self._changed:
            self._zero.add(index)

    def split_zero(self, first: int, count: int) -> list[tuple[int, int, bool]]:
        """Split `count` chunks from `first` on into runs (first, count, whether found_zero() noted them)."""
        with self._changed:
            return list(self._zero.split(first, count))

    def done(self) -> int:
        """Return the number of chunks that are done."""
        with self._changed:
            return len(self._done)

    def take_unsynced(self) -> ChunkSet:
        """Return the chunks done since the last call; the caller makes them durable."""
        with self._changed:
            taken, self._unsynced = self._unsynced, ChunkSet()
            return taken

    def give_back(self, chunks: ChunkSet) -> None:
        """Take back chunks of take_unsynced() that could not be noted in the journal."""
        with self._changed:
            for first, count in chunks.runs():
                self._unsynced.add(first, count)
