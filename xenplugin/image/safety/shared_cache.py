"""Keeps the page caches of two hosts from hiding from one of them what the other has written to a disk they share.

A guest's writes may wait in the page cache of the host that it leaves (a loop device on a network file system), and
the host that it goes to may have pages of an older content, from an earlier stay of the guest. xl does nothing
about either.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from xenplugin.image.files import os_errors


def flush(path: str) -> None:
    """Have what was written here to the shared disk `path` reach the storage. Raises ImageError."""
    with os_errors("flush", path), _opened(path) as fd:
        os.fsync(fd)


def forget(path: str) -> None:
    """Drop what this host remembers of the shared disk `path`, which it has not written to. Raises ImageError."""
    with os_errors("examine", path), _opened(path) as fd:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
