"""The room that a file system has for a new image.

The old image stays until the new one is complete, so what it takes is not room. What an interrupted transfer has
left is room: its blocks are used again. Where the file system compresses, or belongs to a server, what it calls
free is an estimate only.
"""

from __future__ import annotations

import os

from xenplugin.errors import RefusedError
from xenplugin.image.beside import partial_name
from xenplugin.image.files import os_errors
from xenplugin.image.safety.mounts import mounts

#: File systems in which data takes the space that it has.
_PLAIN = {"ext2", "ext3", "ext4", "xfs", "tmpfs", "vfat", "exfat"}


def free_bytes(folder: str | os.PathLike[str]) -> int:
    """Return the bytes that this user can still write in `folder`. Raises OSError."""
    there = os.statvfs(folder)
    return (there.f_bfree if os.geteuid() == 0 else there.f_bavail) * there.f_frsize


def room_for(path: str) -> int:
    """Return the bytes that a new image at `path` can take (symbolic links resolved). Raises ImageError."""
    folder = os.path.dirname(path)
    with os_errors("examine", folder):
        free = free_bytes(folder)
    try:
        return free + 512 * os.lstat(partial_name(path)).st_blocks
    except OSError:
        return free


def check_room(path: str, data: int) -> str:
    """Raise RefusedError if an image with `data` bytes that are no holes has no room at `path`. Returns what is to
    be said if it may have none, "" if there is nothing to say: it fits, or goes to a device. Raises ImageError."""
    real = os.path.realpath(path)
    folder = os.path.dirname(real)
    if not data or not os.path.isdir(folder) or (os.path.exists(real) and not os.path.isfile(real)):
        return ""  # what is wrong with the path, opening the target says
    free = room_for(real)
    if data <= free:
        return ""
    text = f"the file system of {folder} has {free} bytes free, and the image takes {data} bytes"
    if not _is_plain(folder):
        return f"{text}: it fits only if they are compressed"
    raise RefusedError(
        text, hint="free some space there, or name another folder; if much of the image is zeros: --force room"
    )


def _is_plain(folder: str) -> bool:
    with os_errors("examine", folder):
        number = os.stat(folder).st_dev
    return any(mount.number == number and mount.kind in _PLAIN for mount in mounts())
