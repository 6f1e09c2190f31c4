"""Puts an old disk aside, gives its name back, and removes it.

What is on disk at each instant, for a file NAME whose guest leaves:

1. NAME, which the guest has as a disk.
2. NAME, and a record that says under which name it will lie (image.old.old_disk), durable.
3. The file is called NAME.left-for-HOST-TIME, by a rename that replaces nothing. A power failure may bring the old
   name back.
4. The folder is fsynced: the new name is there for good. Only now may the guest run elsewhere.

A guest has a file as a loop device. xl's block script detaches it when the domain is destroyed, but only if the
file still has its name: for a file that lies aside, settle_aside does it. A loop device that stayed would hold the
blocks of a file that is removed.

Giving back goes the same way: rename, fsync of the folder, and the record is removed last. Each function may be
called again after a crash at any point: it looks at the disk first. A guest that has a disk attached does not
notice that it is renamed, because the kernel and QEMU hold it open.

A logical volume is renamed by LVM, which makes that durable. A disk without a name to give up (a partition, a LUN),
or one that cannot be renamed (a mount point, a read-only folder), keeps its name: its record is all there is.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

from xenplugin.errors import ImageError, OwnershipError
from xenplugin.image.files import os_errors, remove, rename_new, sync_directory
from xenplugin.image.old import old_disk, volume
from xenplugin.image.old.aside_name import aside_file, aside_volume
from xenplugin.image.old.loop_devices import detach_loops
from xenplugin.image.old.old_disk import DEVICE, FILE, VOLUME, OldDisk

#: Why a file cannot be renamed though nothing is wrong with it: it is not there any more, it is mounted, its folder
#: is read-only or immutable.
_NO_RENAME = (errno.ENOENT, errno.EBUSY, errno.EROFS, errno.EPERM, errno.EACCES, errno.EXDEV)


def examine(path: str, size: int, *, guest: str, uuid: str, host: str, migration: str, unwanted: bool) -> OldDisk:
    """Return what is to be recorded about the disk `path`, of `size` bytes, when its guest leaves. It keeps its
    name so far. Raises ImageError if it cannot be examined."""
    with os_errors("examine", path):
        status = os.stat(path)
    old = OldDisk(
        path, path, DEVICE, size, guest=guest, uuid=uuid, host=host, migration=migration, left=time.time(),
        unwanted=unwanted,
    )  # fmt: skip
    if stat.S_ISREG(status.st_mode):
        real = os.path.realpath(path)
        return replace(old, path=real, aside=real, storage=FILE, device=status.st_dev, inode=status.st_ino)
    if (known := volume.uuid_of(path)) is None:
        return old
    return replace(old, storage=VOLUME, volume=known)


def put_aside(state_dir: Path, old: OldDisk, notify: Callable[[str], None]) -> None:
    """Record that the guest has left this disk behind, and take its name away; durable on return. `notify` gets a
    line if it can still be found under a name of its own. Raises ImageError if the record cannot be written."""
    old = replace(old, left=time.time())
    why: str | None = "it has no name to give up"
    if old.storage == FILE:
        why = rename_file(state_dir, old, os.path.dirname(old.path), notify)
    elif old.storage == VOLUME:
        why = _rename_volume(state_dir, old)
    if why is not None:
        old_disk.write(state_dir, old)
        notify(f"{old.path} keeps its name here, because {why}: only the plugin's xl refuses to use it")


def rename_file(state_dir: Path, old: OldDisk, folder: str, notify: Callable[[str], None]) -> str | None:
    """Record the file, and rename it, into `folder`. Returns why it keeps its name, None if it has given it up:
    then the record has its new name. `notify` gets a line about its other names. Raises ImageError."""
    if not old.is_at(old.path):
        return "another file has it by now"
    for number in count():
        aside = os.path.join(folder, aside_file(os.path.basename(old.path), old.host, old.left, number))
        if os.path.lexists(aside):
            continue
        old_disk.write(state_dir, replace(old, aside=aside))
        try:
            rename_new(old.path, aside)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno in _NO_RENAME:
                return f"it cannot be renamed ({error.strerror})"
            raise ImageError(f"cannot rename {old.path}: {error.strerror}") from error
        with os_errors("rename", old.path):
            for changed in {folder, os.path.dirname(old.path)}:
                sync_directory(changed)
            links = os.stat(aside).st_nlink - 1
        if links:
            notify(f"{aside} has {links} more names (hard links): only the plugin's xl refuses to use those")
        return None
    raise AssertionError("unreachable")


def _rename_volume(state_dir: Path, old: OldDisk) -> str | None:
    """Rename the volume. Returns why it keeps its name, None if it has given it up."""
    try:
        found = volume.find(old.volume)
    except ImageError as error:
        return error.message
    if found is None:
        return "LVM does not know it any more"
    why = ""
    for number in range(2):  # the first name may be taken
        try:
            name = aside_volume(found.group, found.name, old.host, old.left, number)
            old_disk.write(state_dir, replace(old, aside=replace(found, name=name).path, name=found.name))
            volume.rename(found, name)
            return None
        except ValueError as error:
            return str(error)
        except ImageError as error:
            if volume.find(old.volume) != found:
                raise
            why = error.message
    return why


def settle_aside(state_dir: Path, old: OldDisk) -> None:
    """Detach the loop devices of a file, or deactivate a volume, once no domain has it. Raises ImageError if
    something else has the volume open."""
    if old.aside == old.path:
        return
    if old.storage == FILE and old.is_at(old.aside):
        detach_loops(old.aside)
    elif old.storage == VOLUME and (found := volume.find(old.volume)) is not None:
        volume.deactivate(found)


def give_back(state_dir: Path, old: OldDisk) -> None:
    """Give the disk its name back and remove the record; durable on return. Raises OwnershipError if something else
    has taken the name: nothing is overwritten then. Raises ImageError."""
    if old.aside != old.path:
        (_name_file if old.storage == FILE else _name_volume)(old)
    old_disk.forget(state_dir, old)


def _name_file(old: OldDisk) -> None:
    with suppress(FileNotFoundError), os_errors("rename", old.aside):
        try:
            rename_new(old.aside, old.path)
        except FileExistsError:
            raise _taken(old) from None
        except FileNotFoundError:  # it has its name again, or was removed by hand
            pass
        sync_directory(os.path.dirname(old.path))


def _name_volume(old: OldDisk) -> None:
    found = volume.find(old.volume)
    if found is None:
        return
    if found.name != old.name:
        if os.path.lexists(replace(found, name=old.name).path):
            raise _taken(old)
        volume.rename(found, old.name)
        found = replace(found, name=old.name)
    if not os.path.exists(found.path):
        volume.activate(found)


def _taken(old: OldDisk) -> OwnershipError:
    return OwnershipError(
        f"the disk of {old.guest} lies under {old.aside}: something else has taken its name {old.path} meanwhile",
        hint=f"find out what made {old.path} and move it elsewhere, then run `xenplugin recover`",
    )


def lend_volume(state_dir: Path, path: str) -> bool:
    """Give the volume that had the name `path` its name and device again, because the guest comes back to it. It is
    written in place, and its record stays. Returns whether there is one. Raises OwnershipError, ImageError."""
    for old in old_disk.those_of(state_dir, path):
        if old.storage == VOLUME and old.aside != old.path:
            _name_volume(old)
            return True
    return False


def take_again(state_dir: Path, old: OldDisk) -> None:
    """Take the name away again from a volume whose guest did not come back. Raises ImageError."""
    if old.storage == VOLUME and old.aside != old.path and (found := volume.find(old.volume)) is not None:
        name = os.path.basename(old.aside)
        if found.name != name:
            volume.rename(found, name)
        volume.deactivate(replace(found, name=name))


def has_name(old: OldDisk) -> bool:
    """Return whether the disk has its own name: it never gave it up, or somebody gave it back by hand. Raises
    ImageError."""
    if old.aside == old.path or old.storage != VOLUME:
        return old.aside == old.path or old.is_at(old.path)
    found = volume.find(old.volume)
    return found is not None and found.name == old.name


def bytes_held(old: OldDisk) -> int:
    """Return the bytes that would be free without the disk: 0 if it has its own name, or is gone. Raises
    ImageError."""
    if has_name(old):
        return 0
    if old.storage == VOLUME:
        found = volume.find(old.volume)
        return found.size if found is not None else 0
    if not old.is_at(old.aside):
        return 0
    status = os.stat(old.aside)
    return 512 * status.st_blocks if status.st_nlink == 1 else 0


@contextmanager
def kept_open(old: OldDisk) -> Iterator[None]:
    """Hold the file open, so that removing it within the context takes no time: its blocks, which may take seconds,
    are freed at the end."""
    fd = -1
    with suppress(OSError):
        fd = os.open(old.aside, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield
    finally:
        if fd >= 0:
            os.close(fd)


def remove_old(state_dir: Path, old: OldDisk) -> None:
    """Remove the disk and its record; of a disk that has its own name, only the record. Raises ImageError."""
    if not has_name(old):
        if old.storage == VOLUME:
            if (found := volume.find(old.volume)) is not None:
                volume.remove(found)
        elif old.is_at(old.aside):
            detach_loops(old.aside)
            with os_errors("remove", old.aside):
                remove(old.aside)
                sync_directory(os.path.dirname(old.aside))
    old_disk.forget(state_dir, old)
