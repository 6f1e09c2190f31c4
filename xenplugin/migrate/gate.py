"""One direction of xl's protocol, of which parts are held back until it is time. Pure.

Strategy: everything passes up to where something begins that must wait (`stops`), and what follows that. Whoever
holds the gate does what must be done first (a state on disk, a disk complete), then releases. xl's configuration
(message 2) always waits: it is the first that there is.
"""

from __future__ import annotations

from collections import deque

from xenplugin.migrate.xl_protocol import Backward, Config, Event, Forward


class Gate:
    """Over `direction`, closed where an event of one of the types `stops` begins."""

    def __init__(self, direction: Forward | Backward, stops: tuple[type[Event], ...]) -> None:
        self._direction = direction
        self._stops = stops
        self._held = bytearray()
        self._passed = 0
        self._limits = deque([0] if isinstance(direction, Forward) else [])

    def feed(self, data: bytes) -> tuple[bytes, list[Event]]:
        """The next bytes: what may pass now, and what they say. Raises PeerError for what xl never says."""
        events = self._direction.feed(data)
        self._limits.extend(
            event.at for event in events if isinstance(event, self._stops) and not isinstance(event, Config)
        )
        if not self._held and not self._limits:
            self._passed += len(data)
            return data, events
        self._held += data
        return self._pass(), events

    def release(self) -> bytes:
        """Open the first stop that is closed: what may pass now."""
        self._limits.popleft()
        return self._pass()

    def _pass(self) -> bytes:
        # What began before it could be recognised has passed in part: its last byte has not.
        count = max(0, self._limits[0] - self._passed) if self._limits else len(self._held)
        passing = bytes(self._held[:count])
        del self._held[:count]
        self._passed += len(passing)
        return passing
