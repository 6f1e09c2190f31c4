"""Writes events as JSON lines, for other programs (`--log-json`)."""

from __future__ import annotations

import json
import threading
import time
from typing import TextIO

from xenplugin.events import Event, to_json


class JsonLines:
    """Writes one object per line to `out`, with the key `time` (seconds since the epoch). Thread-safe."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        line = json.dumps({"time": round(time.time(), 3), **to_json(event)})
        with self._lock:
            print(line, file=self._out, flush=True)

    def close(self) -> None:
        """Do nothing: no event is held back."""
