"""Shows progress to the user: plain lines, and on a terminal also one line per machine that is updated in place."""

from __future__ import annotations

import threading
import time
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

_LINE_EVERY = 20.0  # seconds between lines about the same machine if there is no terminal


class Moving(str):
    """A line about `key` that replaces the previous line about it. An empty text removes the line."""

    key: str

    def __new__(cls, key: str, text: str) -> Moving:
        made = super().__new__(cls, f"{key}: {text}" if text else "")
        made.key = key
        return made


class Progress:
    """A `Say` (lab.hosts.interface) that writes to `out`. `close` restores the terminal."""

    def __init__(self, out: TextIO, *, quiet: bool = False) -> None:
        self._console = Console(file=out, highlight=False, soft_wrap=True)
        self._quiet = quiet
        self._lines: dict[str, str] = {}
        self._shown: dict[str, float] = {}
        self._live: Live | None = None
        self._lock = threading.Lock()

    def __call__(self, text: str) -> None:
        with self._lock:
            if isinstance(text, Moving):
                self._move(text)
            elif not self._quiet:
                self._console.print(Text(text))

    def close(self) -> None:
        """Remove the lines that are updated in place."""
        with self._lock:
            self._lines.clear()
            self._refresh()

    def _move(self, line: Moving) -> None:
        if line:
            self._lines[line.key] = line
        else:
            self._lines.pop(line.key, None)
        if self._console.is_terminal and not self._quiet:
            self._refresh()
        elif line and not self._quiet and time.monotonic() - self._shown.get(line.key, -_LINE_EVERY) >= _LINE_EVERY:
            self._shown[line.key] = time.monotonic()
            self._console.print(Text(line))

    def _refresh(self) -> None:
        if not self._lines:
            if self._live is not None:
                self._live.stop()
                self._live = None
            return
        text = Text("\n".join(self._lines.values()), style="dim", no_wrap=True, overflow="ellipsis")
        if self._live is None:
            self._live = Live(text, console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(text, refresh=True)
