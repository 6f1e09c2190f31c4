"""File descriptors that are kept free for the moments of a migration in which it must not lack one: the change of a
record, and its end.

The limit on open files (ulimit -n) counts those of all threads, and connections that are opened anew may use up
what there is. So some descriptors are taken beforehand, and given back when they are needed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from xenplugin.errors import RefusedError

#: For a program that is run with pipes for its output (9), a record and its lock, and one of each thread that ends.
COUNT = 16
#: For the change of a record: the record and its lock; threads that open files meanwhile must not take all.
_LENT = 4


class SpareDescriptors:
    """`count` descriptors that lead nowhere. Raises RefusedError if this process may not open so many more."""

    def __init__(self, count: int = COUNT) -> None:
        self._count = count
        self._held: list[int] = []
        self._lock = threading.Lock()
        self._released = False
        try:
            self._take()
        except OSError as error:
            self.release()
            raise RefusedError(
                f"a migration needs {count} more open files than this process may have: {error.strerror}",
                hint="raise the limit: ulimit -n 1024",
            ) from None

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Have some of the descriptors free inside."""
        with self._lock:
            self._give_back(_LENT)
            try:
                yield
            finally:
                if not self._released:
                    with suppress(OSError):  # the next caller gets those that could be taken again
                        self._take()

    def release(self) -> None:
        """Give the descriptors back for good."""
        with self._lock:
            self._released = True
            self._give_back(self._count)

    def _take(self) -> None:
        while len(self._held) < self._count:
            self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _give_back(self, count: int) -> None:
        while self._held and count:
            os.close(self._held.pop())
            count -= 1
