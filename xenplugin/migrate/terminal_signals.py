"""The terminal's signals go to every process in the foreground. What must outlive ctrl-C ignores them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

#: Signals that end a migration in order.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore the terminal's signals inside; a process started inside ignores them for good. For the main thread
    only."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
