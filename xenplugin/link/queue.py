"""The queue of frames to send: limited in bytes, shared by all connections.

It counts the bytes that leave it and notes when it runs empty; the compression level is chosen by these numbers
(codec.adaptive_level).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from xenplugin.wire.frames import Chunk, Segment, Sent

#: Bytes counted for a frame beside its payload, so that the number of empty frames is limited as well.
_FRAME_BYTES = 256


def cost(frame: Sent) -> int:
    """Return the bytes of memory that are counted for `frame`."""
    return _FRAME_BYTES + (len(frame.payload) if isinstance(frame, Chunk | Segment) else 0)


class SendQueue:
    """A thread-safe queue. `capacity` is in bytes and may be changed; a frame is accepted whenever the queue is
    below it, so the queue can exceed it by one frame."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._frames: deque[Sent] = deque()
        self._bytes = 0
        self._left = 0
        self._starved = False
        self._closed = False
        self._lock = threading.Lock()
        self._filled = threading.Condition(self._lock)
        self._drained = threading.Condition(self._lock)
        self._emptied = threading.Condition(self._lock)

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Sent) -> bool:
        """Append `frame`, waiting while the queue is full. Return False if it was closed, without the frame."""
        with self._lock:
            while self._bytes >= self.capacity and not self._closed:
                self._drained.wait()
            if self._closed:
                return False
            self._frames.append(frame)
            self._bytes += cost(frame)
            self._filled.notify()
            return True

    def get(self, gone: Callable[[], bool], timeout: float) -> Sent | None:
        """Return the next frame; None after `timeout` seconds, when the queue is closed, or when `gone()` is true,
        which is examined again after `wake`."""
        with self._lock:
            if not self._frames:
                self._starved = True
                self._filled.wait_for(lambda: self._frames or self._closed or gone(), timeout)
            if not self._frames or self._closed or gone():
                return None
            frame = self._frames.popleft()
            self._bytes -= cost(frame)
            self._left += cost(frame)
            self._drained.notify()
            if not self._frames:
                self._emptied.notify_all()
            return frame

    def wait_empty(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until the queue is empty; return whether it is."""
        with self._lock:
            return self._emptied.wait_for(lambda: not self._frames or self._closed, timeout)

    def observe(self) -> tuple[int, bool]:
        """Return (bytes that have left the queue in all, whether a sender found it empty since the last call)."""
        with self._lock:
            starved, self._starved = self._starved, False
            return self._left, starved

    def wake(self) -> None:
        """Make all threads that wait in `get` examine `gone` again."""
        with self._lock:
            self._filled.notify_all()

    def close(self) -> None:
        """Close the queue: every waiting thread returns."""
        with self._lock:
            self._closed = True
            self._filled.notify_all()
            self._drained.notify_all()
            self._emptied.notify_all()
