"""What a disk is on this host, whatever it is called: the names of one disk have an identity in common.

A file is known by its device and inode number, and by its folder and its name in it, which outlives a rename over
it. A block device is known by its number; its partitions, the disk that it is a partition of, and the file behind a
loop device count as the same disk, because writing to one changes the other.
"""

from __future__ import annotations

import glob
import os
import stat
from contextlib import suppress
from typing import TypeAlias

#: ("file", device, inode), ("name", device and inode of the folder, name), or ("device", number).
LocalIdentity: TypeAlias = tuple[str | int, ...]


def own(path: str) -> set[LocalIdentity]:
    """Return the identities of the disk at `path`, symbolic links resolved. Where no file is, that of the name;
    none if the folder is missing as well."""
    found: set[LocalIdentity] = set()
    with suppress(OSError, ValueError):
        status = os.stat(path)
        if status.st_rdev:
            return _of_device(_sysfs(status.st_rdev)) | {("device", status.st_rdev)}
        found.add(("file", status.st_dev, status.st_ino))
    with suppress(OSError, ValueError):
        real = os.path.realpath(path)
        folder = os.stat(os.path.dirname(real))
        found.add(("name", folder.st_dev, folder.st_ino, os.path.basename(real)))
    return found


def overlapping(path: str) -> set[LocalIdentity]:
    """Return the identities of the disk at `path` and of all disks that overlap it. To compare two disks, take
    these of one and its `own` of the other: two partitions of one disk do not overlap."""
    found = own(path)
    with suppress(OSError, ValueError):
        if number := os.stat(path).st_rdev:
            here = _sysfs(number)
            for name in glob.glob(f"{here}/*/partition"):
                found |= _of_device(os.path.dirname(name))
            if os.path.exists(f"{here}/partition"):
                found |= _of_device(os.path.dirname(os.path.realpath(here)))
    return found


def _sysfs(number: int) -> str:
    return f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"


def _of_device(directory: str) -> set[LocalIdentity]:
    """Return the identities of the device with this directory in /sys: its number, and the file or device behind
    a loop device."""
    found: set[LocalIdentity] = set()
    with suppress(OSError, ValueError), open(f"{directory}/dev", encoding="ascii") as file:
        major, minor = file.read().split(":")
        found.add(("device", os.makedev(int(major), int(minor))))
    with suppress(OSError, ValueError), open(f"{directory}/loop/backing_file", errors="surrogateescape") as file:
        status = os.stat(file.read().rstrip("\n"))
        if stat.S_ISBLK(status.st_mode):
            found |= _of_device(_sysfs(status.st_rdev))
        else:
            found.add(("file", status.st_dev, status.st_ino))
    return found
