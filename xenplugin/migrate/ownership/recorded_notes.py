"""Notes to the destination, each of which it writes into its record before the source goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

#: Seconds between two calls of `check`.
_TICK = 0.1


class RecordedNotes:
    """Sends notes by `send`. `check` raises what ends the migration; it is called often while this waits."""

    def __init__(self, send: Callable[[dict[str, Any]], None], check: Callable[[], None]) -> None:
        self._send = send
        self._check = check
        self._noted = threading.Event()
        self._reply: dict[str, Any] = {}

    def send(self, key: str, value: Any) -> dict[str, Any]:
        """Send `value` under `key`, and wait until the destination has it on disk. Returns the fields of its
        reply."""
        self.post(key, value)
        return self.wait_noted()

    def post(self, key: str, value: Any) -> None:
        """Send `value` under `key`. The reply is awaited by `wait_noted`, before the next note is sent."""
        self._noted.clear()
        self._send({key: value})

    def wait_noted(self) -> dict[str, Any]:
        """Wait for the reply to the last note. Returns its fields."""
        self.wait(self._noted)
        return self._reply

    def wait(self, event: threading.Event) -> None:
        """Wait for `event`. Raises what `check` raises."""
        while not event.wait(_TICK):
            self._check()

    def on_note(self, fields: dict[str, Any]) -> None:
        """Take a note from the destination, in any thread."""
        if "noted" in fields:
            self._reply = fields
            self._noted.set()
