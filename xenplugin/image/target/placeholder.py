"""An empty file under the final name of an image that has not arrived yet.

xl checks that a disk's file exists long before the disk is complete. The image replaces the placeholder by a
rename; if no image arrives, the placeholder is removed. What is on disk at each instant, for a file NAME:

1. The draft of NAME (image/beside.py), empty. One that a crash has left is removed.
2. The migration's record has NAME, and the inode of that file. So from here on nothing starts a guest on NAME, and
   recovery removes it.
3. NAME is that file, by a rename.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from os import PathLike

from xenplugin.image.beside import draft_name
from xenplugin.image.files import os_errors, remove, rename_new, sync_directory


class Placeholder:
    """The empty file created at `path`, with inode number `inode` on device `device`."""

    def __init__(self, path: str, device: int, inode: int) -> None:
        self.path = path
        self.device = device
        self.inode = inode

    @classmethod
    def make(cls, path: str | PathLike[str], record: Callable[[int], None]) -> Placeholder | None:
        """Create one, durably; `record` gets its inode number before it has its name. Returns None if `path`
        exists, or is no place for a file. Raises ImageError, and what `record` raises."""
        real = os.path.realpath(path)
        if os.path.lexists(real) or (real.startswith("/dev/") and not real.startswith("/dev/shm/")):
            return None
        draft = draft_name(real)
        with os_errors("create", real):
            try:
                remove(draft)
                fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except (FileNotFoundError, NotADirectoryError):
                return None  # if the directory is missing, opening the image gives a better error
            try:
                status = os.fstat(fd)
                os.fsync(fd)
            finally:
                os.close(fd)
            try:
                record(status.st_ino)
                rename_new(draft, real)
            except FileExistsError:
                remove(draft)
                return None
            except BaseException:
                remove(draft)
                raise
            sync_directory(os.path.dirname(real))
        return cls(real, status.st_dev, status.st_ino)

    def remove(self) -> None:
        """Remove it, unless something else has taken its name. Errors are ignored: an empty file does no harm."""
        with suppress(OSError):
            now = os.lstat(self.path)
            if (now.st_dev, now.st_ino, now.st_size) == (self.device, self.inode, 0):
                os.unlink(self.path)
                sync_directory(os.path.dirname(self.path))
