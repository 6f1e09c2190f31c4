"""The locks of the folder of ownership records: for its files, for a guest that leaves, for recovery.

All are advisory locks of the kernel, which end with their process. Each function raises ImageError if a lock file
cannot be used, as on a read-only file system."""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xenplugin.errors import OwnershipError, RefusedError
from xenplugin.image.files import os_errors

#: Seconds between two tries to get a lock.
_LOOK = 0.05


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock under which records are changed."""
    fd = _open(folder, "lock")
    try:
        with os_errors("lock", str(folder)):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def claim(folder: Path, uuid: str) -> None:
    """Claim the guest for this process until it ends: no other process may migrate it, even before there is a
    record. Raises RefusedError if another process has claimed it."""
    fd = _open(folder, "busy")
    try:
        # The kernel releases the lock when this process ends or closes the file.
        with os_errors("lock", str(folder)):
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(uuid))
            except (BlockingIOError, PermissionError):  # fcntl(2): EAGAIN or EACCES
                raise RefusedError(
                    "the guest is being migrated already",
                    hint="wait for that migration, or stop it: `xenplugin status` shows it",
                ) from None
    except BaseException:
        os.close(fd)
        raise


@contextmanager
def settling(folder: Path, key: str, patience: float) -> Iterator[None]:
    """Hold the lock under which one process at a time looks at the guest of the record `key`, and acts on what it
    finds. Raises OwnershipError if another process holds it for `patience` seconds."""
    fd = _open(folder, "settling")
    # A lock of the open file, unlike that of `claim`: threads of one process exclude each other, too.
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _place(key), 1, 0)
    deadline = time.monotonic() + patience
    try:
        while not _taken(fd, wanted, folder):
            if time.monotonic() > deadline:
                raise OwnershipError(
                    f"another process has been settling the same migration for {patience:.0f} s",
                    hint="wait for the other `xenplugin recover`, or end it",
                )
            time.sleep(_LOOK)
        yield
    finally:
        os.close(fd)


def _taken(fd: int, wanted: bytes, folder: Path) -> bool:
    with os_errors("lock", str(folder)):
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
        except (BlockingIOError, PermissionError):  # fcntl(2): EAGAIN or EACCES
            return False
    return True


def _open(folder: Path, name: str) -> int:
    with os_errors("use", str(folder)):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _place(text: str) -> int:
    """Return the byte of a lock file that stands for `text`."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
