"""Puts the frames of many packers into the order of the image's chunks."""

from __future__ import annotations

import threading
from collections.abc import Callable

from xenplugin.transfer.chunks.packing import WORKERS
from xenplugin.wire.frames import Chunk, Zeros

#: Frames that wait for an earlier one, at most: a packer with a chunk that packs slowly delays no other meanwhile.
_HELD = 2 * WORKERS


class OrderedFrames:
    """Gives the frames of an image, which come from any thread, to `write` in the order of their chunks; one thread
    at a time calls it. Each chunk must come once."""

    def __init__(self, write: Callable[[Chunk | Zeros], None]) -> None:
        self._write = write
        self._next = 0
        self._held: dict[int, Chunk | Zeros] = {}
        self._changed = threading.Condition()
        self._closed = False

    def put(self, frame: Chunk | Zeros) -> None:
        """Write `frame` once all before it are written; waits while too many wait. Raises what `write` raises."""
        first = frame.index if isinstance(frame, Chunk) else frame.first
        with self._changed:
            self._changed.wait_for(lambda: self._closed or first == self._next or len(self._held) < _HELD)
            self._held[first] = frame
            while not self._closed and (due := self._held.pop(self._next, None)) is not None:
                self._write(due)
                self._next += 1 if isinstance(due, Chunk) else due.count
            self._changed.notify_all()

    def close(self) -> None:
        """Drop what waits, and what comes."""
        self._closed = True
        with self._changed:
            self._changed.notify_all()
