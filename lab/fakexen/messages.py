"""The messages between two xl (Xen's tools/xl/xl_migrate.c), and exact reading and writing of pipes."""

from __future__ import annotations

import os
import sys

BANNER = b"xl migration receiver ready, send binary domain data.\n"
READY = b"domain received, ready to unpause\0"
GO = b"domain is yours, you are cleared to unpause\0"
REPORT = b"my copy unpause results are as follows\0"
MAGIC = b"Xen saved domain, xl format\n \0 \r"
_PIECE = 1 << 20  # bytes of one read or write


class BrokenPipe(Exception):
    """The other side of a pipe has ended, or sent something unexpected."""


def complain(text: str) -> None:
    """Print a line to standard error; ignore that nobody reads it any more, as stdio does."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        pass


def read(fd: int, count: int, what: str, stream: str) -> bytes:
    """Return exactly `count` bytes. Raises BrokenPipe, after xl's own message, if the stream ends before."""
    data = bytearray()
    while len(data) < count:
        piece = os.read(fd, min(count - len(data), _PIECE))
        if not piece:
            complain(f"libxl: error: file/stream truncated reading {what} from {stream}")
            raise BrokenPipe(what)
        data += piece
    return bytes(data)


def expect(fd: int, message: bytes, what: str, stream: str) -> None:
    """Read `message`. Raises BrokenPipe, after xl's own message, if something else comes."""
    if read(fd, len(message), what, stream) != message:
        complain(f"{stream} contained unexpected data instead of {what}")
        raise BrokenPipe(what)


def write(fd: int, data: bytes | memoryview) -> None:
    """Write all of `data`. Raises BrokenPipe if nobody reads it."""
    view = memoryview(data)
    try:
        while len(view):
            view = view[os.write(fd, view[:_PIECE]) :]
    except BrokenPipeError:
        raise BrokenPipe("Broken pipe") from None
    finally:
        view.release()
