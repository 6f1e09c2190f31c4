"""One direction of the relay (Way), one connection (Link) and its part in each direction (Flow).

A way has one clock for all its flows: when the rate limit is free again. What is read at some moment is due
at that clock plus half the RTT, so what a way carries is one queue in time order. A flow whose receiver does
not read keeps what is due for it, and is not read from while it holds too much.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

from netem.emulator.stats import Lateness
from netem.profile import Profile

_NS = 1_000_000_000
_CHUNK = 256 * 1024  # bytes a read takes at most
_RATED_CHUNK = (4096, 65536)  # with a rate: about a millisecond of it, between these
_MOST_HELD = 64 << 20  # bytes in a flow: 5 Gbit/s at 100 ms


class Way:
    """Direction 0: towards the targets, 1: back. Times are integer nanoseconds."""

    def __init__(self, profile: Profile) -> None:
        self.flying: deque[tuple[int, Flow, bytes]] = deque()  # (due, flow, data), due never descends
        self.change(profile)

    def change(self, profile: Profile) -> None:
        """Another profile from now on; counters start at 0."""
        self.delay = round(profile.one_way * _NS)
        self.rate = profile.rate
        self.chunk = _CHUNK
        self._queue_time = 0
        if profile.rate is not None:
            low, high = _RATED_CHUNK
            self.chunk = min(max(profile.rate // 8000, low), high)
            self._queue_time = (profile.queue_bytes or 0) * 8 * _NS // profile.rate
        self._free = 0
        self.bytes = 0
        self.lateness = Lateness()

    def full_until(self) -> int:
        """When the queue has room again; a time in the past means it has."""
        return 0 if self.rate is None else self._free - self._queue_time

    def carry(self, now: int, flow: Flow, data: bytes) -> None:
        """`data` was read from `flow`; none means that it was closed."""
        sent = now
        if self.rate is not None:
            sent = self._free = max(now, self._free) + len(data) * 8 * _NS // self.rate
        due = sent + self.delay
        if self.flying and due < self.flying[-1][0]:
            due = self.flying[-1][0]
        self.flying.append((due, flow, data))
        flow.held += len(data)

    def as_dict(self) -> dict[str, Any]:
        """Bytes that were delivered, chunks on their way, lateness."""
        return {"bytes": self.bytes, "in_flight": len(self.flying), "lateness": self.lateness.as_dict()}


class Link:
    """A connection: the client's socket, the socket to the target once there is one, a flow each way."""

    def __init__(self, client: socket.socket, server: socket.socket, ways: tuple[Way, Way]) -> None:
        self.client = client
        self.server = server
        self.out = Flow(self, ways[0], client, server)
        self.back = Flow(self, ways[1], server, client)
        self.connected = False
        self.closed = False


class Flow:
    """What one socket sends to the other. `held` bytes were read and not yet written."""

    def __init__(self, link: Link, way: Way, source: socket.socket, target: socket.socket) -> None:
        self.link = link
        self.way = way
        self.source = source
        self.target = target
        self.held = 0
        self.ended = False  # the source sends no more
        self.broken = False  # because it was reset
        self.paused = False  # not read from because it was full
        self.done = False  # and the target was told
        self._due: deque[bytes | memoryview] = deque()

    @property
    def full(self) -> bool:
        """Whether it must not be read from for now."""
        return self.held >= _MOST_HELD

    @property
    def waiting(self) -> bool:
        """Whether something is due that the target did not take yet."""
        return bool(self._due)

    def push(self, data: bytes) -> None:
        """`data` is due: keeps it in order, and writes what the target takes. Raises OSError when it is gone."""
        self._due.append(data)
        self.write()

    def write(self) -> None:
        """Writes what is due as far as the target takes it. Raises OSError when it is gone."""
        while self._due and self.link.connected:
            data = self._due[0]
            if not data:
                if self.broken:
                    raise ConnectionResetError
                self.target.shutdown(socket.SHUT_WR)
                self.done = True
                self._due.popleft()
                continue
            try:
                sent = self.target.send(data)
            except BlockingIOError:
                return
            self.held -= sent
            self.way.bytes += sent
            if sent < len(data):
                self._due[0] = memoryview(data)[sent:]
                return
            self._due.popleft()
