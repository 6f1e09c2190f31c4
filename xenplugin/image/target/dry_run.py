"""Finds out, without changing anything, whether a path can be the target of an image.

It asks what opening the target would ask (target.sink, target.file, target.device), in the same order. What only
opening it can find out, such as a user that comes meanwhile, is found out then.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from xenplugin.errors import RefusedError
from xenplugin.image.beside import journal_name, partial_name
from xenplugin.image.files import os_errors
from xenplugin.image.formats.create import refuse_part_of_sector
from xenplugin.image.formats.kinds import Format
from xenplugin.image.old import old_disk, volume
from xenplugin.image.safety.fixed_name import refuse_fixed_name
from xenplugin.image.safety.in_use import claim_device, refuse_if_used, refuse_mount_point
from xenplugin.image.source.raw import refuse_partial_sectors
from xenplugin.image.target import journal
from xenplugin.image.target.abstract import Attached, refuse_attached
from xenplugin.image.target.device_size import refuse_size
from xenplugin.image.target.partial import open_left, open_replaced
from xenplugin.image.target.room import room_for
from xenplugin.image.target.sink import refuse_place


@dataclass(frozen=True)
class TargetFacts:
    """What is at a path that can be a target. `device`: a block device; `size`: bytes of what is there, None if
    nothing is; `aside`: the old disk that would be the base, "" if there is none; `free`: bytes of the file system
    that a new image can take, None for a device; `file_system`: its device number."""

    device: bool
    size: int | None
    aside: str = ""
    free: int | None = None
    file_system: int = 0


def examine(
    path: str, size: int, *, state_dir: Path, attached: Attached, format: Format, larger_device: str
) -> TargetFacts:
    """Return what is at `path`, the target of an image of `size` bytes. The keywords are those of sink.open_sink. A
    volume that lies aside counts as being at its former path, because it gets its name back for a guest that
    returns. Raises RefusedError or ImageError if it cannot be the target."""
    real = os.path.realpath(path)
    if not os.path.exists(real) and (lent := _volume_aside(path, size, state_dir, larger_device)):
        return lent
    mode = refuse_place(path, real)
    refuse_attached(lambda _: attached(path) or attached(real), path)
    if stat.S_ISBLK(mode):
        return _device(path, size, larger_device)
    return _file(real, size, format, state_dir)


def _volume_aside(path: str, size: int, state_dir: Path, larger_device: str) -> TargetFacts | None:
    """Return the volume that had the name `path` (image.old.moving.lend_volume); None if there is none."""
    for old in old_disk.those_of(state_dir, path):
        if old.storage == old_disk.VOLUME and old.aside != old.path:
            found = volume.find(old.volume)
            if found is not None:
                refuse_size(path, found.size, size, larger_device)
                return TargetFacts(True, found.size, old.aside)
    return None


def _device(path: str, size: int, larger_device: str) -> TargetFacts:
    fd = claim_device(path, os.O_RDONLY)
    try:
        refuse_if_used(path, fd, claimed=True)
        with os_errors("examine", path):
            has = os.lseek(fd, 0, os.SEEK_END)
            refuse_partial_sectors(path, fd, has)
        refuse_size(path, has, size, larger_device)
    finally:
        os.close(fd)
    return TargetFacts(True, has)


def _file(path: str, size: int, format: Format, state_dir: Path) -> TargetFacts:
    refuse_part_of_sector(format, size)
    refuse_mount_point(path)
    folder = os.path.dirname(path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RefusedError(
            f"no file can be created in {folder}: it is read-only or belongs to another user",
            hint="mount it writable, or set `paths` in xenplugin.conf to another folder",
        )
    replaced = open_replaced(path, size, format)
    try:
        if replaced is not None:
            refuse_if_used(path, replaced.fileno())
        with _opened(folder) as fd:
            refuse_fixed_name(path, None if replaced is None else replaced.fileno(), fd)
        if os.path.lexists(partial_name(path)):
            journal.read(journal_name(path))
        old = open_left(path, state_dir) if replaced is None or not replaced.size else None
        aside = ""
        if old is not None:
            aside = old.path
            old.close()
        with os_errors("examine", folder):
            number = os.stat(folder).st_dev
    finally:
        if replaced is not None:
            replaced.close()
    _refuse_writer(path)
    return TargetFacts(False, replaced.size if replaced is not None else None, aside, room_for(path), number)


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    """Open the folder. Raises ImageError."""
    with os_errors("open", folder):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _refuse_writer(path: str) -> None:
    """Raise RefusedError if another copy writes to the partial of `path`."""
    part = partial_name(path)
    try:
        fd = os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RefusedError(f"another copy to {path} is running", hint="wait for it, or stop it") from None
    except OSError:
        pass
    finally:
        with suppress(OSError):
            os.close(fd)
