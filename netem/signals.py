"""Signals: clean up on SIGTERM, never interrupt a cleanup, and wake up a select() loop.

SIGTERM ends a Python program without leaving its `with` blocks; SigtermGuard turns it into SystemExit. Python runs
signal handlers in the main thread only, so there is nothing to do in other threads.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class SigtermGuard:
    """While set, SIGTERM raises SystemExit(143), unless the program has a handler of its own."""

    def __init__(self) -> None:
        self._ours = False

    def set(self) -> None:
        """Install the handler; do nothing outside the main thread."""
        if _in_main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _leave)
            self._ours = True

    def restore(self) -> None:
        """Remove the handler; harmless when repeated."""
        if self._ours and _in_main_thread():
            self._ours = False
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """Delay SIGINT and SIGTERM that arrive inside the block until it ends."""
    if not _in_main_thread():
        yield
        return
    noted: list[int] = []
    old = {
        each: signal.signal(each, lambda number, _: noted.append(number))
        for each in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for each, handler in old.items():
            signal.signal(each, handler)
        for number in dict.fromkeys(noted):
            signal.raise_signal(number)


def signal_pipe() -> int:
    """Return a descriptor that becomes readable when a signal arrives; the reader has to empty it.

    select() goes on sleeping after a Python handler has run (PEP 475), so a loop that has to notice signals at once
    watches this descriptor too.
    """
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
