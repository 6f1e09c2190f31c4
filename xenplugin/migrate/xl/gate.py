"""Forwards one direction of xl's protocol and holds back the parts that must wait. Pure.

Everything passes up to the first byte of a part that must wait (`stops`); that part and all that follows is kept.
The caller does what must be done first (a state on disk, the disks complete), then releases it. xl's configuration
(message 2) always waits: it begins at the first byte.
"""

from __future__ import annotations

from collections import deque

from xenplugin.migrate.xl.xl_protocol import Backward, Forward, GuestConfig, XlEvent


class Gate:
    """A gate over `direction`, which closes where an event of one of the types `stops` begins."""

    def __init__(self, direction: Forward | Backward, stops: tuple[type[XlEvent], ...]) -> None:
        self._direction = direction
        self._stops = stops
        self._held = bytearray()
        self._passed = 0
        self._limits = deque([0] if isinstance(direction, Forward) else [])

    def feed(self, data: bytes) -> tuple[bytes, list[XlEvent]]:
        """Take the next bytes. Returns the bytes that may pass now, and the events. Raises PeerError for anything
        that xl does not send."""
        events = self._direction.feed(data)
        self._limits.extend(
            event.at for event in events if isinstance(event, self._stops) and not isinstance(event, GuestConfig)
        )
        if not self._held and not self._limits:
            self._passed += len(data)
            return data, events
        self._held += data
        return self._pass(), events

    def release(self) -> bytes:
        """Open the first closed stop. Returns the bytes that may pass now."""
        self._limits.popleft()
        return self._pass()

    def _pass(self) -> bytes:
        # A part may have passed in part before it could be recognised; its last byte has not.
        count = max(0, self._limits[0] - self._passed) if self._limits else len(self._held)
        passing = bytes(self._held[:count])
        del self._held[:count]
        self._passed += len(passing)
        return passing
