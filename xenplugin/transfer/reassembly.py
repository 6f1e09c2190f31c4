"""Segments that came over many connections, put in order again; and what may be acknowledged of each. Pure.

A segment is acknowledged when its bytes were handed on, so that a slow reader slows the source. What is there
already is dropped, but counts as arrived on the connection that brought it. Not thread-safe: the owner locks.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from xenplugin.errors import PeerError
from xenplugin.wire.frames import WINDOW, End, Segment

Line = TypeVar("Line")


class Reassembly(Generic[Line]):
    """`handed` segments were handed on, from the first on without a gap."""

    def __init__(self) -> None:
        self.handed = 0
        self._held: dict[int, Segment] = {}
        self._arrived: dict[Line, deque[int]] = {}
        self._acknowledged: dict[Line, int] = {}
        self._end: End | None = None

    def arrive(self, line: Line, segment: Segment) -> int | None:
        """A segment came over `line`. Returns what can be acknowledged there, if that has grown. Raises
        PeerError."""
        number = segment.number
        if number >= self.handed + WINDOW or (self._end is not None and number >= self._end.count):
            raise PeerError(f"segment {number} when {self.handed} were handed on")
        arrived = self._arrived.setdefault(line, deque())
        arrived.append(number)
        if len(arrived) > 2 * WINDOW:
            raise PeerError("more segments on a connection than may be under way")
        if number >= self.handed:
            self._held.setdefault(number, segment)
        return self._settle(line)

    def finish(self, end: End) -> None:
        """END came. Raises PeerError."""
        if self.handed > end.count or any(number >= end.count for number in self._held):
            raise PeerError("more segments came than END counts")
        self._end = end

    @property
    def ended(self) -> bytes | None:
        """The digest of the whole, once all of it was handed on."""
        return self._end.digest if self._end is not None and self._end.count == self.handed else None

    def ready(self) -> Segment | None:
        """The segment whose turn it is, if it is there."""
        return self._held.get(self.handed)

    def hand_on(self) -> list[tuple[Line, int]]:
        """What was `ready` was handed on. Returns what can be acknowledged now on which connections."""
        del self._held[self.handed]
        self.handed += 1
        counts = [(line, self._settle(line)) for line in self._arrived]
        return [(line, count) for line, count in counts if count is not None]

    def forget(self, line: Line) -> None:
        """The connection is gone; what it brought stays."""
        self._arrived.pop(line, None)
        self._acknowledged.pop(line, None)

    def _settle(self, line: Line) -> int | None:
        arrived, before = self._arrived[line], self._acknowledged.get(line, 0)
        count = before
        while arrived and arrived[0] < self.handed:
            arrived.popleft()
            count += 1
        self._acknowledged[line] = count
        return count if count > before else None
