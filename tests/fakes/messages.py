"""What two xl say to each other (Xen's tools/xl/xl_migrate.c), and reading and writing it exactly."""

from __future__ import annotations

import os
import sys

BANNER = b"xl migration receiver ready, send binary domain data.\n"
READY = b"domain received, ready to unpause\0"
GO = b"domain is yours, you are cleared to unpause\0"
REPORT = b"my copy unpause results are as follows\0"
MAGIC = b"Xen saved domain, xl format\n \0 \r"


class Broken(Exception):
    """The other side of a pipe is gone, or says something else."""


def say(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:  # SIGPIPE is ignored: stdio only notes it
        pass


def read(fd: int, count: int, what: str, stream: str) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = os.read(fd, min(count - len(data), 1 << 20))
        if not piece:
            say(f"libxl: error: file/stream truncated reading {what} from {stream}")
            raise Broken(what)
        data += piece
    return bytes(data)


def expect(fd: int, message: bytes, what: str, stream: str) -> None:
    if read(fd, len(message), what, stream) != message:
        say(f"{stream} contained unexpected data instead of {what}")
        raise Broken(what)


def write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while len(view):
            view = view[os.write(fd, view) :]
    except BrokenPipeError:
        raise Broken("Broken pipe") from None
