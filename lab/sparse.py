"""Data and holes of sparse files."""

from __future__ import annotations

import os
from collections.abc import Iterator


def extents(fd: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) in bytes of each run of data in an open file. The file's position changes."""
    stop = 0
    while True:
        try:
            start = os.lseek(fd, stop, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        stop = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, stop
