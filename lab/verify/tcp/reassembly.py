"""TCP's order: from segments to bytes, one direction, with bounded memory.

The strategy: sequence numbers are counted on without end, and segments that came early wait in a heap. What was
there before is compared with what it was then (lab.verify.tcp.recent_bytes); where it was something else, where
that cannot be told, and where it has no place in the stream at all, it is handed on beside it. A hole that is not
filled before too much waits is counted, never papered over. So is what the capture has nothing of: the numbers of
segments without data, FIN, and what the other direction acknowledges tell how far a stream went.
"""

from __future__ import annotations

import heapq
from typing import Protocol

from lab.verify.tcp.recent_bytes import OVERHEAD, Recent, Room

EARLY = 1 << 24  # bytes held per direction while an earlier segment is missing
ALL_EARLY = 1 << 27  # bytes held of all directions
_WINDOW = 1 << 30  # bytes: no more are under way at once, so what is farther behind is not sent again
_NUMBERS = 1 << 32


class Sink(Protocol):
    """Who takes the bytes of a stream in order."""

    def add(self, data: bytes) -> None:
        """The next bytes."""

    def again(self, data: bytes) -> None:
        """Bytes beside the stream: sent again, and maybe otherwise, or without a place in it."""

    def lost(self, count: int) -> None:
        """The next `count` bytes are not in the capture."""

    def close(self) -> None:
        """There are no more for now."""


class Order:
    """One direction. Bytes are counted that were `repeated`, among them those that were `altered`; that are
    `missing`; and that are `unplaced`, in no place that a stream could have."""

    def __init__(self, sink: Sink, room: Room | None = None) -> None:
        self._sink = sink
        self._room = room or Room()
        # Places are numbers of bytes, counted on from the first number that was seen and never reduced.
        self._known: int | None = None  # so far the stream went
        self._lowest = 0  # place that was seen of it while there was no data
        self._begin: int | None = None  # of the first byte
        self._end: int | None = None  # FIN's
        self._acked: int | None = None
        self._next = 0  # the byte that is wanted
        self._cut = False
        self._early: list[tuple[int, bytes]] = []
        self._held = 0
        self._recent = Recent(self._room)
        self.carried = False
        self.repeated = 0
        self.altered = 0
        self.missing = 0
        self.unplaced = 0

    @property
    def done(self) -> bool:
        """FIN came, and all before it."""
        return self._end is not None and self._begin is not None and self._next >= self._end

    def others(self, number: int) -> bool:
        """Whether a SYN with this sequence number is another stream's."""
        return self._begin is not None and self._place(number + 1) != self._begin

    def segment(self, number: int, syn: bool, data: bytes, fin: bool = False) -> None:
        """A segment with sequence number `number` (of the SYN itself, if `syn`)."""
        place = self._place(number + syn)
        end = place + len(data)
        if self._begin is None:
            self._lowest = min(self._lowest, place)
            if syn or data:
                self._start(place, syn)
        self._learn(end)
        if fin:
            self._end = end
        if not data:
            return
        self.carried = True
        if place <= self._next:
            self._deliver(place, data)
            self._release()
            return
        heapq.heappush(self._early, (place, data))
        self._hold(len(data) + OVERHEAD)
        while self._early and (self._held > EARLY or self._room.early > ALL_EARLY):
            self._skip()

    def acknowledged(self, number: int) -> None:
        """The other direction says that all before `number` arrived."""
        self._acked = self._place(number)
        self._learn(self._acked)

    def cut(self) -> None:
        """The connection was reset: what was under way and nobody acknowledged may never have come by."""
        self._cut = True

    def beside(self, data: bytes) -> None:
        """Bytes that have no place in the stream."""
        self.unplaced += len(data)
        self._sink.again(data)

    def _place(self, number: int) -> int:
        """The place nearest to what is known of the stream."""
        if self._known is None:
            self._known = self._lowest = number % _NUMBERS
        half = _NUMBERS // 2
        return self._known + (number - self._known + half) % _NUMBERS - half

    def _start(self, place: int, syn: bool) -> None:
        """The first segment that tells where the bytes begin. Without a SYN the capture began in the middle: with
        what is acknowledged or said first, if that is not the number before, of a probe that keeps alive."""
        self._begin = self._next = place if syn or place - self._lowest <= 1 else self._lowest

    def _learn(self, place: int) -> None:
        assert self._known is not None
        self._known = max(self._known, place)

    def _hold(self, count: int) -> None:
        self._held += count
        self._room.early += count

    def _deliver(self, place: int, data: bytes) -> None:
        """Hand on what of `data` is new."""
        old = min(self._next - place, len(data))
        if old:
            self._repeat(place, data[:old])
        if old < len(data):
            self._sink.add(data[old:])
            self._recent.add(self._next, data[old:])
            self._next = place + len(data)

    def _repeat(self, place: int, data: bytes) -> None:
        """Bytes before the one that is wanted."""
        assert self._begin is not None and self._known is not None
        if place < self._begin or place < self._known - _WINDOW:
            self.beside(data)
            return
        self.repeated += len(data)
        differing = self._recent.differing(place, data)
        if differing != 0:
            self._sink.again(data)
            probe = len(data) == 1 and place == self._next - 1  # that keeps alive, with any byte
            self.altered += 0 if probe else differing or 0

    def _release(self) -> None:
        """Segments that waited and whose turn has come."""
        while self._early and self._early[0][0] <= self._next:
            place, data = heapq.heappop(self._early)
            self._hold(-len(data) - OVERHEAD)
            self._deliver(place, data)

    def _skip(self) -> None:
        """Give up the bytes before the first segment that waits: the capture does not hold them."""
        self._miss(self._early[0][0])
        self._release()

    def _miss(self, place: int) -> None:
        """Go on at `place`."""
        if place > self._next:
            end = min(place, self._acked) if self._cut and self._acked is not None else place
            self.missing += max(0, end - self._next)
            self._sink.lost(place - self._next)
            self._next = place

    def close(self) -> None:
        """The end of the stream: holes that are still open stay holes, and what it had still to come is missing."""
        while self._early:
            self._skip()
        if self._known is not None:
            known = self._known - (self._end is not None and self._known == self._end + 1)  # FIN has a number, too
            if self._begin is None and known - self._lowest > 1:  # what is more than that FIN or a probe
                self._begin = self._next = self._lowest
            if self._begin is not None:
                self._miss(known)
        self._recent.clear()
        self._sink.close()
