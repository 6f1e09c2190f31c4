"""Sparse files: find where a file has data, and make holes.

Strategy: SEEK_DATA and SEEK_HOLE, called lazily, so that an empty TiB costs one system call. A file system that
does not report holes has data everywhere.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xenplugin.geometry import CHUNK, chunk_count

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

_libc = ctypes.CDLL(None, use_errno=True)
# 64-bit offsets on every machine: glibc's name for it, else musl's.
_fallocate = getattr(_libc, "fallocate64", None) or getattr(_libc, "fallocate", None)


@dataclass(frozen=True)
class Run:
    """`count` chunks from chunk `first` on; `hole`: all of them are holes from end to end."""

    first: int
    count: int
    hole: bool


def data_ranges(fd: int, start: int, stop: int, unit: int = 1) -> Iterator[tuple[int, int]]:
    """Yield the ranges (start, stop) of bytes that are not holes, between `start` and `stop` of the open file `fd`.

    Ranges are rounded out to multiples of `unit` bytes (but not beyond `stop`), are in order, and never touch;
    `start` is a multiple of `unit`. At most two system calls for each `unit`. Moves the file position. Raises
    OSError.
    """
    data = _seek(fd, start, os.SEEK_DATA, stop)
    while data < stop:
        begin = end = data - data % unit
        while data < stop and data - data % unit == end:
            # At least one unit on, even if the file changes meanwhile and SEEK_HOLE returns its own argument.
            hole = max(_seek(fd, data, os.SEEK_HOLE, stop), data + 1)
            end = min(-(-hole // unit) * unit, stop)
            data = _seek(fd, end, os.SEEK_DATA, stop)
        yield begin, end


def _seek(fd: int, offset: int, whence: int, stop: int) -> int:
    """The next data or hole from `offset` on; `stop` if there is none."""
    try:
        return os.lseek(fd, offset, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:  # `offset` is behind the last data, or behind the end of a file that shrank
            return stop
        if error.errno == errno.EINVAL:  # holes are not reported here
            return offset if whence == os.SEEK_DATA else stop
        raise


def chunk_runs(fd: int, first: int, stop: int) -> Iterator[Run]:
    """Yield chunks `first` to `stop` of the open file `fd` as runs, in order, data and holes in turn.

    A chunk with any data at all is data. Moves the file position. Raises OSError.
    """
    return runs_of(data_ranges(fd, first * CHUNK, stop * CHUNK, CHUNK), first, stop)


def runs_of(ranges: Iterable[tuple[int, int]], first: int, stop: int) -> Iterator[Run]:
    """Yield chunks `first` to `stop` as runs, in order, data and holes in turn: data is what any of the `ranges` of
    bytes (start, stop), which are in order, touches."""
    at, held = first, None
    for begin, end in ranges:
        begin, end = begin // CHUNK, min(chunk_count(end), stop)
        if held is not None and begin <= held.first + held.count:
            held = Run(held.first, max(held.count, end - held.first), False)
            at = held.first + held.count
            continue
        if held is not None:
            yield held
        if at < begin:
            yield Run(at, begin - at, True)
        held = Run(begin, end - begin, False)
        at = end
    if held is not None:
        yield held
    if at < stop:
        yield Run(at, stop - at, True)


def has_data(fd: int, offset: int, length: int) -> bool:
    """Return whether the file has anything but a hole in that range. Raises OSError."""
    stop = offset + length
    return _seek(fd, offset, os.SEEK_DATA, stop) < stop


def punch(fd: int, offset: int, length: int) -> bool:
    """Make `length` bytes from `offset` on read as zeros and free their space.

    Works for files and block devices. Returns False where it is not supported. Raises OSError.
    """
    if _fallocate is None:
        return False
    while True:
        result = _fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length))
        if result == 0:
            return True
        code = ctypes.get_errno()
        if code in _UNSUPPORTED:
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
