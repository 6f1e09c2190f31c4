"""TCP's order: from segments to bytes, one direction, with bounded memory.

The strategy: sequence numbers are counted on without end, segments that came early wait in a heap, repeated bytes
are dropped. A hole that is not filled before too much waits is counted, never papered over.
"""

from __future__ import annotations

import heapq
from typing import Protocol

EARLY = 1 << 24  # bytes held per direction while an earlier segment is missing
ALL_EARLY = 1 << 27  # bytes held of all directions
_NUMBERS = 1 << 32


class Sink(Protocol):
    """Who takes the bytes of a stream in order."""

    def add(self, data: bytes) -> None:
        """The next bytes."""

    def close(self) -> None:
        """There are no more for now."""


class Room:
    """How many bytes wait, of all directions that share it."""

    def __init__(self) -> None:
        self.held = 0


class Order:
    """One direction: `repeated` and `missing` count bytes."""

    def __init__(self, sink: Sink, room: Room | None = None) -> None:
        self._sink = sink
        self._room = room or Room()
        self._begin: int | None = None  # the number of the first byte
        self._next = 0  # the byte that is wanted, counted from number 0 and never reduced
        self._early: list[tuple[int, bytes]] = []
        self._held = 0
        self.repeated = 0
        self.missing = 0

    def segment(self, number: int | None, syn: bool, data: bytes) -> None:
        """A segment with sequence number `number` (of the SYN itself, if `syn`); None: simply the next."""
        if number is None:
            self._sink.add(data)
            return
        if syn:
            number = (number + 1) % _NUMBERS
        # A SYN with another number is another connection between the same ports; without one seen, the capture
        # began in the middle of the stream.
        if self._begin is None or (syn and number != self._begin):
            if self._begin is not None:
                self.close()
            self._begin = self._next = number
        if not data:
            return
        place = self._next + self._ahead(number)
        if place <= self._next:
            self._deliver(place, data)
            self._release()
            return
        heapq.heappush(self._early, (place, data))
        self._hold(len(data))
        while self._early and (self._held > EARLY or self._room.held > ALL_EARLY):
            self._skip()

    def _ahead(self, number: int) -> int:
        """How far `number` lies after the byte that is wanted; negative: before it."""
        half = _NUMBERS // 2
        return (number - self._next + half) % _NUMBERS - half

    def _hold(self, count: int) -> None:
        self._held += count
        self._room.held += count

    def _deliver(self, place: int, data: bytes) -> None:
        """Hand on what of `data` is new."""
        old = min(self._next - place, len(data))
        self.repeated += old
        if old < len(data):
            self._sink.add(data[old:])
            self._next = place + len(data)

    def _release(self) -> None:
        """Segments that waited and whose turn has come."""
        while self._early and self._early[0][0] <= self._next:
            place, data = heapq.heappop(self._early)
            self._hold(-len(data))
            self._deliver(place, data)

    def _skip(self) -> None:
        """Give up the bytes before the first segment that waits: the capture does not hold them."""
        self.missing += self._early[0][0] - self._next
        self._next = self._early[0][0]
        self._release()

    def close(self) -> None:
        """The end of the stream: holes that are still open stay holes."""
        while self._early:
            self._skip()
        self._sink.close()
