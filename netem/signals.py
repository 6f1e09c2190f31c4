"""Signals while something is up that must be taken down again, and what the dead left behind.

SIGTERM kills a Python program without leaving its `with` blocks; SigtermGuard turns it into SystemExit.
Taking down must not be interrupted half-way: signals_wait notes them and raises them afterwards. Python runs
handlers in the main thread only, so there is nothing to do in others.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class SigtermGuard:
    """While set, SIGTERM raises SystemExit(143). Only where nobody else has a handler."""

    def __init__(self) -> None:
        self._ours = False

    def set(self) -> None:
        """Begins; nothing happens outside the main thread."""
        if _in_main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _leave)
            self._ours = True

    def restore(self) -> None:
        """Ends; harmless when repeated."""
        if self._ours and _in_main_thread():
            self._ours = False
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """SIGINT and SIGTERM that arrive inside the block take effect when it ends."""
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


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
