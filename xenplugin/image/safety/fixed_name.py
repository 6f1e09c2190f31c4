"""Refuse a target whose name cannot be given to another file, before the work is done and not at its end."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import sys

from xenplugin.errors import RefusedError
from xenplugin.image.files import os_errors

#: FS_IOC_GETFLAGS of linux/fs.h, and two of the flags (chattr +i and +a).
_GETFLAGS = 2 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1
_IMMUTABLE, _APPEND = 0x10, 0x20


def refuse_fixed_name(path: str, fd: int | None, folder: int) -> None:
    """Raise RefusedError if the file `path` cannot be replaced. `fd`: its descriptor, None if there is none yet;
    `folder`: that of its folder. Raises ImageError if they cannot be examined."""
    if _flags(folder) & _APPEND:
        raise RefusedError(
            f"{path} cannot be written: nothing can be renamed in an append-only folder",
            hint=f"chattr -a {os.path.dirname(path)}",
        )
    if fd is None:
        return
    if _flags(fd) & (_IMMUTABLE | _APPEND):
        raise RefusedError(
            f"{path} is immutable or append-only, so it cannot be replaced", hint=f"chattr -i -a {path}"
        )
    with os_errors("examine", path):
        inside, around = os.fstat(fd), os.fstat(folder)
    if around.st_mode & stat.S_ISVTX and os.geteuid() not in (0, inside.st_uid, around.st_uid):
        raise RefusedError(
            f"{path} belongs to another user, who alone can replace it in a sticky folder",
            hint="run this as that user or as root, or choose another target",
        )


def _flags(fd: int) -> int:
    try:
        return int.from_bytes(fcntl.ioctl(fd, _GETFLAGS, bytes(8))[:4], sys.byteorder)
    except OSError:  # a file system without such flags
        return 0
