"""An empty file under the final name of an image that has not arrived yet.

xl checks that a disk's file exists long before the disk is complete. The image replaces the placeholder by a
rename; if no image arrives, the placeholder is removed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from os import PathLike

from xenplugin.image.files import os_errors, sync_directory


class Placeholder:
    """The empty file created at `path`, with inode number `inode` on device `device`."""

    def __init__(self, path: str, device: int, inode: int) -> None:
        self.path = path
        self.device = device
        self.inode = inode

    @classmethod
    def make(cls, path: str | PathLike[str]) -> Placeholder | None:
        """Create one, durably. Returns None if `path` exists, or is no place for a file. Raises ImageError."""
        real = os.path.realpath(path)
        if real.startswith("/dev/") and not real.startswith("/dev/shm/"):
            return None
        with os_errors("create", real):
            try:
                fd = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except (FileExistsError, FileNotFoundError, NotADirectoryError):
                return None  # if the directory is missing, opening the image gives a better error
            try:
                status = os.fstat(fd)
                os.fsync(fd)
            finally:
                os.close(fd)
            sync_directory(os.path.dirname(real))
        return cls(real, status.st_dev, status.st_ino)

    def remove(self) -> None:
        """Remove it, unless something else has taken its name. Errors are ignored: an empty file does no harm."""
        with suppress(OSError):
            now = os.lstat(self.path)
            if (now.st_dev, now.st_ino, now.st_size) == (self.device, self.inode, 0):
                os.unlink(self.path)
                sync_directory(os.path.dirname(self.path))
