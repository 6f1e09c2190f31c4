"""An empty file under the final name of an image that is not there yet: xl looks whether a disk's file exists long
before the disk is complete. It gives way to the image by a rename, and is removed if none comes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from os import PathLike

from xenplugin.image.files import os_errors, sync_directory


class Placeholder:
    """The empty file at `path` that was made with inode number `inode` on device `device`."""

    def __init__(self, path: str, device: int, inode: int) -> None:
        self.path = path
        self.device = device
        self.inode = inode

    @classmethod
    def make(cls, path: str | PathLike[str]) -> Placeholder | None:
        """Make one, durably. None where something is already, or where no file can be. Raises ImageError."""
        real = os.path.realpath(path)
        if real.startswith("/dev/") and not real.startswith("/dev/shm/"):
            return None
        with os_errors("make", real):
            try:
                fd = os.open(real, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except (FileExistsError, FileNotFoundError, NotADirectoryError):
                return None  # without the directory: whoever opens the image says so better
            try:
                status = os.fstat(fd)
                os.fsync(fd)
            finally:
                os.close(fd)
            sync_directory(os.path.dirname(real))
        return cls(real, status.st_dev, status.st_ino)

    def remove(self) -> None:
        """Remove it, unless it has become something else. Raises nothing: it is empty and does no harm."""
        with suppress(OSError):
            now = os.lstat(self.path)
            if (now.st_dev, now.st_ino, now.st_size) == (self.device, self.inode, 0):
                os.unlink(self.path)
                sync_directory(os.path.dirname(self.path))
