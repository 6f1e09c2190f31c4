"""The frames that wait to be sent: bounded in bytes, shared by all connections.

The compression level follows how fast it empties and whether it runs dry (codec.adaptive_level), which is
measured here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from xenplugin.wire.frames import Chunk, End, Segment, Sent

#: What a frame costs beside its payload, so that a flood of empty frames is bounded as well.
_FLAT = 256


def cost(frame: Sent | End) -> int:
    """Bytes of memory that `frame` stands for."""
    return _FLAT + (len(frame.payload) if isinstance(frame, Chunk | Segment) else 0)


class SendQueue:
    """`capacity` in bytes, which may be changed. A frame larger than what is left waits until the queue is below
    capacity."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._frames: deque[Sent | End] = deque()
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

    def put(self, frame: Sent | End) -> bool:
        """Waits while the queue is full. False if it was closed (the frame is dropped)."""
        with self._lock:
            while self._bytes >= self.capacity and not self._closed:
                self._drained.wait()
            if self._closed:
                return False
            self._frames.append(frame)
            self._bytes += cost(frame)
            self._filled.notify()
            return True

    def get(self, gone: Callable[[], bool], timeout: float) -> Sent | End | None:
        """The next frame; None after `timeout` seconds, when closed, or when `gone()` after a `wake`."""
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
        """Whether all frames were given to a connection, waiting up to `timeout` seconds for it."""
        with self._lock:
            return self._emptied.wait_for(lambda: not self._frames or self._closed, timeout)

    def observe(self) -> tuple[int, bool]:
        """(bytes that have left it in all, whether a sender found it empty since the last call)."""
        with self._lock:
            starved, self._starved = self._starved, False
            return self._left, starved

    def wake(self) -> None:
        """Let those who wait in `get` look at `gone` again."""
        with self._lock:
            self._filled.notify_all()

    def close(self) -> None:
        """End it: every waiter returns."""
        with self._lock:
            self._closed = True
            self._filled.notify_all()
            self._drained.notify_all()
            self._emptied.notify_all()
