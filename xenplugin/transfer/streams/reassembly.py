"""Puts segments that came over many connections in order again, and counts what may be acknowledged. Pure.

A segment is acknowledged when its bytes were handed on, so that a slow reader slows the source. A segment that came
before is dropped, but counts as arrived on the connection that brought it. Not thread-safe: the owner locks.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from xenplugin.errors import PeerError
from xenplugin.wire.frames import WINDOW, End, Segment

ConnectionKey = TypeVar("ConnectionKey")


class Reassembly(Generic[ConnectionKey]):
    """Segments of one stream, of which the first `handed` were handed on."""

    def __init__(self) -> None:
        self.handed = 0
        self._held: dict[int, Segment] = {}
        self._arrived: dict[ConnectionKey, deque[int]] = {}
        self._acknowledged: dict[ConnectionKey, int] = {}
        self._end: End | None = None

    def add(self, connection: ConnectionKey, segment: Segment) -> int | None:
        """Add a segment that came over `connection`. Returns the count to acknowledge there, if it has grown.
        Raises PeerError."""
        number = segment.number
        if number >= self.handed + WINDOW or (self._end is not None and number >= self._end.count):
            raise PeerError(f"segment {number} came when only {self.handed} were handed on")
        arrived = self._arrived.setdefault(connection, deque())
        arrived.append(number)
        if len(arrived) > 2 * WINDOW:
            raise PeerError("more segments came on a connection than may be in flight")
        if number >= self.handed:
            self._held.setdefault(number, segment)
        return self._count(connection)

    def finish(self, end: End) -> None:
        """Add END. Raises PeerError."""
        if self.handed > end.count or any(number >= end.count for number in self._held):
            raise PeerError("more segments came than END counts")
        self._end = end

    @property
    def ended(self) -> bytes | None:
        """The digest of the whole stream once all of it was handed on, None before."""
        return self._end.digest if self._end is not None and self._end.count == self.handed else None

    def ready(self) -> Segment | None:
        """Return the next segment in order if it has arrived."""
        return self._held.get(self.handed)

    def hand_on(self) -> list[tuple[ConnectionKey, int]]:
        """Note that the segment that was `ready` was handed on. Returns the connections on which more can be
        acknowledged now, with the counts."""
        del self._held[self.handed]
        self.handed += 1
        counts = [(connection, self._count(connection)) for connection in self._arrived]
        return [(connection, count) for connection, count in counts if count is not None]

    def forget(self, connection: ConnectionKey) -> None:
        """Forget a connection that is gone; the segments it brought stay."""
        self._arrived.pop(connection, None)
        self._acknowledged.pop(connection, None)

    def _count(self, connection: ConnectionKey) -> int | None:
        arrived, before = self._arrived[connection], self._acknowledged.get(connection, 0)
        count = before
        while arrived and arrived[0] < self.handed:
            arrived.popleft()
            count += 1
        self._acknowledged[connection] = count
        return count if count > before else None
