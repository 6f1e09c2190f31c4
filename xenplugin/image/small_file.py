"""Read a small file from a folder that others may write to: it may be anything by then.

Only a regular file is read, and only so much of it. A pipe would never end, a device may do something when it is
opened, a link may lead anywhere, and /dev/zero would fill the memory.
"""

from __future__ import annotations

import errno
import os
import stat


class UnfitFileError(OSError):
    """The file is not a regular one, or is too large; `strerror` says so."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EINVAL, why)


_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"),
)


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY, *, follow: bool = False) -> int:
    """Open the regular file `path` with `flags`, and return its descriptor. `follow`: it may be a symbolic link.
    Never waits. Raises OSError, UnfitFileError if it is not a regular file."""
    _refuse_kind(os.stat(path, follow_symlinks=follow))  # to open some devices does something
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    try:
        _refuse_kind(os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_small(path: str | os.PathLike[str], most: int, *, follow: bool = False) -> bytes:
    """Return the content of the regular file `path`. Raises OSError, UnfitFileError if it is not a regular file or
    has more than `most` bytes."""
    fd = open_regular(path, follow=follow)
    try:
        parts, left = [], most + 1
        while left and (part := os.read(fd, left)):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(fd)
    if not left:
        raise UnfitFileError(f"it is larger than {most} bytes")
    return b"".join(parts)


def _refuse_kind(status: os.stat_result) -> None:
    for test, kind in _KINDS:
        if test(status.st_mode):
            raise UnfitFileError(f"it is {kind}, not a regular file")
