"""A small file with reserved space: its next versions need no new block, inode or name, so a full disk cannot
prevent them.

What is on disk at each instant, for a file NAME and its spare .NAME.spare, which have the same size and all of
their blocks:

1. NAME is the old version. The spare holds a version before that, or blanks.
2. The spare is overwritten in place with the new version, then blanks to its end, and synced.
3. The two names are exchanged in one step: NAME is the new version. A power failure may still bring the old one
   back.
4. On return the folder is synced: NAME is the new version for good, and the old one is the spare.

A version that is larger than the spare is written anew, with a larger spare. File systems that never write in place
(btrfs, ZFS) keep this order, but may need new blocks for step 2.
"""

from __future__ import annotations

import os
from contextlib import suppress

from xenplugin.image.beside import spare_name
from xenplugin.image.files import exchange, remove, sync_directory, write_at, write_atomically
from xenplugin.image.small_file import open_regular

_BLOCK = 4096


def write_reserved(path: str | os.PathLike[str], data: bytes, *, continued: bool) -> None:
    """Write `data` to the file `path`, in which blanks at the end mean nothing, and keep room for three times as
    much. `continued`: this process wrote the version before, to its end; otherwise one that died may have left an
    exchange that is not durable yet. Only one process at a time may write `path`. Raises OSError; `path` is then as
    it was, unless it was the sync of the folder that failed."""
    path = os.fspath(path)
    folder, spare = os.path.dirname(path), spare_name(path)
    if not continued:
        sync_directory(folder)
    size = _fill(spare, data)
    if not size:
        _write_anew(path, data)
        return
    try:
        exchanged = exchange(spare, path)
        sync_directory(folder)
    except OSError:
        with suppress(OSError):  # which of the two a power failure leaves under the name is unknown now
            remove(spare)
        raise
    if not exchanged:  # the spare is used up; the file that it replaced has left its space
        with suppress(OSError):
            _allocate(spare, size)


def remove_reserved(path: str | os.PathLike[str]) -> None:
    """Remove the file `path` and its spare. Does nothing if they are gone. Raises OSError."""
    remove(os.fspath(path))
    remove(spare_name(os.fspath(path)))


def _fill(spare: str, data: bytes) -> int:
    """Make `data` the durable content of the spare. Returns its size in bytes, 0 if it is missing or too small."""
    try:
        fd = open_regular(spare, os.O_WRONLY)
    except FileNotFoundError:
        return 0
    try:
        size = os.fstat(fd).st_size
        if len(data) > size:
            return 0
        write_at(fd, [memoryview(data.ljust(size))], 0)
        os.fdatasync(fd)
        return size
    finally:
        os.close(fd)


def _write_anew(path: str, data: bytes) -> None:
    room = -(-3 * len(data) // _BLOCK) * _BLOCK
    known = os.path.lexists(path)
    try:
        _allocate(spare_name(path), room)
        write_atomically(path, data.ljust(room))
    except OSError:
        if not known:
            remove_reserved(path)
        raise


def _allocate(spare: str, size: int) -> None:
    # Written, not only allocated: an extent that was never written is split when it is, which may need a block.
    write_atomically(spare, b" " * size)
