"""Standard output and standard error that cannot fail: the work decides what is done and the exit code, not whether
somebody can read about it.

`guard()` puts a GuardedStream in the place of sys.stdout and of sys.stderr. A stream that could not be written
(/dev/full, a pipe whose reader has ended, a descriptor that was closed before the start) remembers why, and drops
what comes later.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import threading

#: Seconds to wait for a stream that does not block and takes nothing, before what is written counts as lost.
_WAIT = 10.0


class GuardedStream(io.TextIOBase):
    """The stream of descriptor `fd`, with characters in `encoding`; `closed`: whether it was closed at the start.
    Nothing is buffered. Thread-safe."""

    def __init__(self, fd: int, encoding: str, *, closed: bool = False) -> None:
        self._fd = fd
        self._encoding = encoding
        self.was_closed = closed  #: at the start
        self._lock = threading.Lock()
        self.lost: str | None = None  #: why something could not be written; None: nothing was lost

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of what is written."""
        return self._encoding

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._fd)

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write `text`, or drop it."""
        if not isinstance(text, str):
            raise TypeError(f"text is needed, not {type(text).__name__}")
        with self._lock:
            if self.was_closed and text:
                self.lost = "it was closed"
            elif self.lost is None:
                try:
                    self._write(text.encode(self._encoding, errors="backslashreplace"))
                except OSError as error:
                    self.lost = error.strerror or str(error)
        return len(text)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while len(view):
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # a terminal that another process has set to non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                if not poll.poll(1000 * _WAIT):
                    raise


def guard() -> None:
    """Guard sys.stdout and sys.stderr, once for each process. A standard descriptor that is closed leads to
    /dev/null from now on: otherwise the next file that is opened would get its number, and what is printed."""
    closed = [number for number in range(3) if not _is_open(number)]
    for _ in closed:  # the lowest free number is the one that is missing
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    encodings = [getattr(stream, "encoding", None) or "utf-8" for stream in (sys.stdout, sys.stderr)]
    sys.stdout = GuardedStream(1, encodings[0], closed=1 in closed)
    sys.stderr = GuardedStream(2, encodings[1], closed=2 in closed)


def was_closed(stream: object) -> bool:
    """Return whether the descriptor of `stream` was closed at the start."""
    return isinstance(stream, GuardedStream) and stream.was_closed


def lost(stream: object) -> str | None:
    """Return why something that was written to `stream` is lost; None if nothing was."""
    return stream.lost if isinstance(stream, GuardedStream) else None


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError as error:
        return error.errno != errno.EBADF
    return True
