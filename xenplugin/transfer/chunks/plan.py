"""The plan of what is still to be sent, handed out to the packers. Thread-safe.

First every run of the image in order, then what a lost connection may not have delivered. A plan is *covered* when
each chunk was handed out and finished at least once; it stays open until it is closed, for what is lost and for
another round.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator

from xenplugin.image.sparse import Run
from xenplugin.wire.frames import Chunk, Sent, Zeros


class Plan:
    """Hands out the chunks of `runs`, which are in order and read lazily."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._items = in_order(runs)
        self._again: deque[int | Zeros] = deque()
        self._busy = 0
        self._ended = False
        self._broken: Exception | None = None
        self._closed = False
        self._changed = threading.Condition()

    def begin_round(self, items: Iterator[int | Zeros]) -> None:
        """Begin another round: hand out `items` next, which are read lazily, one at a time."""
        with self._changed:
            self._items, self._ended = items, False
            self._changed.notify_all()

    def end_round(self) -> Iterator[int | Zeros]:
        """Hand out nothing more of the round. Returns the items that were not handed out."""
        with self._changed:
            left, self._items, self._ended = self._items, iter(()), True
            self._changed.notify_all()
            return left

    def take(self, wait: bool = True, fresh: bool = True) -> int | Zeros | None:
        """Return the next chunk (its index) or run of zeros, waiting for one unless `wait` is false; None at the
        end. Unless `fresh`, only what was handed out before and lost. Each item taken must be `finished`. Raises
        what reading the runs raises."""
        with self._changed:
            while not self._closed:
                if self._again:
                    self._busy += 1
                    return self._again.popleft()
                if self._broken is not None:
                    raise self._broken
                if fresh and not self._ended:
                    try:
                        item = next(self._items, None)
                    except Exception as exc:
                        self._broken = exc  # or its end would look like the image's
                        self._changed.notify_all()
                        raise
                    if item is not None:
                        self._busy += 1
                        return item
                    self._ended = True
                    self._changed.notify_all()
                if not wait:
                    return None
                self._changed.wait()
            return None

    def finished(self) -> None:
        """Note that an item that was taken has been packed."""
        with self._changed:
            self._busy -= 1
            if not self._busy:
                self._changed.notify_all()

    def resend(self, frames: Iterable[Sent]) -> None:
        """Hand out again what `frames` described."""
        with self._changed:
            for frame in frames:
                if isinstance(frame, Chunk):
                    self._again.append(frame.index)
                elif isinstance(frame, Zeros):
                    self._again.append(frame)
            self._changed.notify_all()

    def wait_covered(self, timeout: float) -> bool:
        """Return whether all was handed out and finished, or the plan closed, waiting up to `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._closed or (self._ended and not self._busy and not self._again), timeout
            )

    def close(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def in_order(runs: Iterable[Run]) -> Iterator[int | Zeros]:
    """Yield the chunks of `runs`, holes as runs of zeros."""
    for run in runs:
        if run.hole:
            yield Zeros(run.first, run.count)
        else:
            yield from range(run.first, run.first + run.count)
