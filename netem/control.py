"""The child's end of netem.child: JSON commands on stdin, one answer a line on stdout, the end of stdin is
the end.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

from netem.errors import NetemError

STDIN = 0


def signal_pipe() -> int:
    """A descriptor that becomes readable when a signal arrives: select() goes on sleeping after a Python
    handler (PEP 475), so a loop that wants to see its flags at once must watch this, and read it empty.
    """
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


class Control:
    """Commands that have arrived. `open` turns False when stdin ends. Watch STDIN with select, then call
    obey.
    """

    def __init__(self) -> None:
        os.set_blocking(STDIN, False)
        self.open = True
        self._pending = b""

    def obey(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Answers each complete command by `answer(command)`; its errors become {"error": ...}."""
        try:
            data = os.read(STDIN, 65536)
        except BlockingIOError:
            return
        if not data:
            self.open = False
            return
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            try:
                self.say(answer(json.loads(line)))
            except (NetemError, ValueError, TypeError, KeyError) as error:
                self.say({"error": str(error) or type(error).__name__})

    def say(self, message: dict[str, Any]) -> None:
        """One line to the parent."""
        data = (json.dumps(message) + "\n").encode()
        while data:
            data = data[os.write(1, data) :]
