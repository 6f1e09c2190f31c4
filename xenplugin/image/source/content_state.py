"""Tells whether the content of an image changed between two looks at it, without reading it.

Strategy: a write to a file sets its time of modification, and one to a block device counts in the kernel's
statistics of that device. (Memory that a program has mapped is seen when it is first written to after the kernel
wrote it back; safety/written.py refuses such a program beforehand.) The time of a file's last change (ctime) says
less: a hard link, a rename or chmod set it as well. Only a program that writes and then sets the old time of
modification again would be missed without it. And what a FUSE daemon reports as times may be anything; the one of
qemu-storage-daemon reports the present time. In both cases only reading the image again can tell.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from xenplugin.image.safety.mounts import mounts

#: Fields of /sys/dev/block/*/stat: sectors that were written, and discarded. (A flush counts as a write of none.)
_WRITE_FIELDS = (6, 13)


class Change(Enum):
    """What two looks at an image show: SAME content, CHANGED content, or UNSURE: only reading it again can tell."""

    SAME = auto()
    CHANGED = auto()
    UNSURE = auto()


@dataclass(frozen=True)
class ContentState:
    """An image as one look shows it. Of a device, `times` and `labels` are None; `writes` is None for a file, and
    where the kernel does not count writes."""

    size: int
    times: tuple[int, int] | None
    labels: tuple[int, ...] | None
    writes: tuple[int, ...] | None

    @classmethod
    def of(cls, fd: int, device: bool) -> ContentState:
        """Look at the open image. Raises OSError."""
        status = os.fstat(fd)
        if device:
            return cls(os.lseek(fd, 0, os.SEEK_END), None, None, writes_to(status.st_rdev))
        labels = (status.st_nlink, status.st_mode, status.st_uid, status.st_gid)
        return cls(status.st_size, (status.st_mtime_ns, status.st_ctime_ns), labels, None)

    def compare(self, later: ContentState, own_times: Callable[[], bool]) -> Change:
        """Return what changed until the `later` look. `own_times` returns whether the file system reports times
        that say nothing about the content."""
        if later.size != self.size or later.writes != self.writes:
            return Change.CHANGED
        if later.times == self.times or self.times is None or later.times is None:
            return Change.SAME
        if later.times[0] != self.times[0]:
            return Change.UNSURE if own_times() else Change.CHANGED
        # The inode's change time alone moved. If it shows why, that was it.
        return Change.SAME if later.labels != self.labels else Change.UNSURE


def writes_to(number: int) -> tuple[int, ...] | None:
    """Return counters that move when something is written to the block device `number`; None if there are none."""
    directory = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
    try:
        queue = directory if os.path.isdir(f"{directory}/queue") else f"{directory}/.."  # a partition has none
        with open(f"{queue}/queue/iostats", encoding="ascii") as file:
            if file.read().strip() == "0":
                return None
        with open(f"{directory}/stat", encoding="ascii") as file:
            fields = file.read().split()
        return tuple(int(fields[at]) for at in _WRITE_FIELDS if at < len(fields))
    except (OSError, ValueError):
        return None


def has_own_times(fd: int) -> bool:
    """Return whether the open file is on a FUSE file system, whose daemon decides what its times are."""
    number = os.fstat(fd).st_dev
    return any(mount.number == number and mount.kind.split(".")[0].startswith("fuse") for mount in mounts())
