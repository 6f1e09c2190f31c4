"""TCP reassembly: turns the segments of one direction into its bytes in order, with bounded memory.

The strategy: sequence numbers become positions that are never reduced modulo 2^32, and segments that come early
wait in a heap. Retransmitted bytes are compared with what they were at first (lab.verify.tcp.recent_bytes). They go
to the sink as extra bytes, outside the stream, if they differ, if they can no longer be compared, or if their
position cannot belong to the stream. A hole that is not filled before the memory for early segments is used up
counts as missing. So do bytes that the capture lacks entirely: sequence numbers of segments without data, FIN, and
acknowledgments of the other direction show how long the stream really was.
"""

from __future__ import annotations

import heapq
from typing import Protocol

from lab.verify.tcp.recent_bytes import OVERHEAD, BufferUse, RecentBytes

EARLY_LIMIT = 1 << 24  # bytes held per direction while an earlier segment is missing
ALL_EARLY_LIMIT = 1 << 27  # bytes held of all directions
_MAX_WINDOW = 1 << 30  # bytes: TCP's largest window, so bytes farther back are no retransmission
_NUMBERS = 1 << 32


class StreamSink(Protocol):
    """Receives the bytes of a stream in order."""

    def add(self, data: bytes) -> None:
        """Take the next bytes."""

    def add_extra(self, data: bytes) -> None:
        """Take bytes that are not part of the stream: retransmitted and possibly changed, or without a position in
        it."""

    def skip(self, count: int) -> None:
        """Note that the next `count` bytes are not in the capture."""

    def close(self) -> None:
        """End the stream. Bytes that follow begin a new one."""


class Reassembler:
    """Reassembles one direction of a TCP connection. `has_data`: a segment with data came. Counts bytes that were
    `repeated`, those of them that were `altered`, bytes `missing` from the capture, and bytes that are `unplaced`:
    at no possible position of the stream."""

    def __init__(self, sink: StreamSink, use: BufferUse | None = None) -> None:
        self._sink = sink
        self._use = use or BufferUse()
        # Positions count bytes from the first sequence number that was seen; they are never reduced modulo 2^32.
        self._known: int | None = None  # the highest position seen so far
        self._lowest = 0  # the lowest position seen before the first data
        self._begin: int | None = None  # position of the first byte
        self._end: int | None = None  # position of FIN
        self._acked: int | None = None
        self._next = 0  # position of the next byte for the sink
        self._reset = False
        self._early: list[tuple[int, bytes]] = []
        self._held = 0
        self._recent = RecentBytes(self._use)
        self.has_data = False
        self.repeated = 0
        self.altered = 0
        self.missing = 0
        self.unplaced = 0

    @property
    def finished(self) -> bool:
        """Whether FIN and all bytes before it came."""
        return self._end is not None and self._begin is not None and self._next >= self._end

    def is_other_syn(self, number: int) -> bool:
        """Return whether a SYN with this sequence number begins another stream."""
        return self._begin is not None and self._position(number + 1) != self._begin

    def segment(self, number: int, syn: bool, data: bytes, fin: bool = False) -> None:
        """Add a segment with sequence number `number` (that of the SYN itself, if `syn`)."""
        position = self._position(number + syn)
        end = position + len(data)
        if self._begin is None:
            self._lowest = min(self._lowest, position)
            if syn or data:
                self._start(position, syn)
        self._learn(end)
        if fin:
            self._end = end
        if not data:
            return
        self.has_data = True
        if position <= self._next:
            self._deliver(position, data)
            self._deliver_early()
            return
        heapq.heappush(self._early, (position, data))
        self._hold(len(data) + OVERHEAD)
        while self._early and (self._held > EARLY_LIMIT or self._use.early > ALL_EARLY_LIMIT):
            self._skip_hole()

    def acknowledged(self, number: int) -> None:
        """Note that the other direction acknowledged all bytes before sequence number `number`."""
        self._acked = self._position(number)
        self._learn(self._acked)

    def reset(self) -> None:
        """Note that the connection was reset: bytes that were never acknowledged may not have passed the place of
        the capture, so they do not count as missing."""
        self._reset = True

    def add_unplaced(self, data: bytes) -> None:
        """Pass bytes without a position in the stream to the sink."""
        self.unplaced += len(data)
        self._sink.add_extra(data)

    def _position(self, number: int) -> int:
        """Return the position of a sequence number: of all possible ones, that nearest to the highest one seen."""
        if self._known is None:
            self._known = self._lowest = number % _NUMBERS
        half = _NUMBERS // 2
        return self._known + (number - self._known + half) % _NUMBERS - half

    def _start(self, position: int, syn: bool) -> None:
        """Set the begin of the stream from its first segment with SYN or data. Without SYN the capture began within
        the connection: then the stream begins at the lowest position seen or acknowledged, unless that is only one
        byte earlier, as in a keep-alive probe."""
        self._begin = self._next = position if syn or position - self._lowest <= 1 else self._lowest

    def _learn(self, position: int) -> None:
        assert self._known is not None
        self._known = max(self._known, position)

    def _hold(self, count: int) -> None:
        self._held += count
        self._use.early += count

    def _deliver(self, position: int, data: bytes) -> None:
        """Pass the new part of `data` to the sink, and compare the rest."""
        old = min(self._next - position, len(data))
        if old:
            self._repeat(position, data[:old])
        if old < len(data):
            self._sink.add(data[old:])
            self._recent.add(self._next, data[old:])
            self._next = position + len(data)

    def _repeat(self, position: int, data: bytes) -> None:
        """Compare bytes before the next position with what they were at first."""
        assert self._begin is not None and self._known is not None
        if position < self._begin or position < self._known - _MAX_WINDOW:
            self.add_unplaced(data)
            return
        self.repeated += len(data)
        differing = self._recent.differing(position, data)
        if differing != 0:
            self._sink.add_extra(data)
            probe = len(data) == 1 and position == self._next - 1  # keep-alive: its byte may be anything
            self.altered += 0 if probe else differing or 0

    def _deliver_early(self) -> None:
        """Deliver waiting segments that have no hole before them any more."""
        while self._early and self._early[0][0] <= self._next:
            position, data = heapq.heappop(self._early)
            self._hold(-len(data) - OVERHEAD)
            self._deliver(position, data)

    def _skip_hole(self) -> None:
        """Give up the bytes before the first waiting segment: the capture lacks them."""
        self._skip_to(self._early[0][0])
        self._deliver_early()

    def _skip_to(self, position: int) -> None:
        """Continue at `position`; count the bytes before it as missing."""
        if position > self._next:
            end = min(position, self._acked) if self._reset and self._acked is not None else position
            self.missing += max(0, end - self._next)
            self._sink.skip(position - self._next)
            self._next = position

    def close(self) -> None:
        """End the stream: holes that are still open, and bytes between the last ones and the known end, are
        missing."""
        while self._early:
            self._skip_hole()
        if self._known is not None:
            known = self._known - (self._end is not None and self._known == self._end + 1)  # FIN has a number
            if self._begin is None and known - self._lowest > 1:  # more than FIN or a keep-alive probe
                self._begin = self._next = self._lowest
            if self._begin is not None:
                self._skip_to(known)
        self._recent.clear()
        self._sink.close()
