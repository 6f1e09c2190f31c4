"""The block device of dom0 that serves a guest's disk, and whether all writes to the disk pass through it."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from pathlib import Path

from xenplugin.xen.block_events import SECTOR
from xenplugin.xen.guest import Disk
from xenplugin.xen.tracefs import CannotTrackError

Device = tuple[int, int]  #: (major, minor)


def serving_device(disk: Disk) -> tuple[Device, int]:
    """Return the block device that the backend of `disk` writes to, and the offset of its first byte in the image.
    Raises CannotTrackError if there is none, or if something else may write to the disk; OSError."""
    if disk.backend != "vbd":
        raise CannotTrackError(f"it is served as {disk.backend}, not by the kernel")
    if disk.physical is None:
        raise CannotTrackError("xenstore does not say which device serves it")
    status = os.stat(disk.path)
    offset = 0
    if stat.S_ISREG(status.st_mode):
        if not os.path.samestat(os.stat(sysfs(disk.physical, "loop/backing_file")), status):
            raise CannotTrackError(f"it is served from another file than {disk.path}")
        offset = int(sysfs(disk.physical, "loop/offset"))
        if offset % SECTOR:
            raise CannotTrackError(f"its loop device begins at byte {offset}")
    elif os.makedev(*disk.physical) != status.st_rdev:
        raise CannotTrackError(f"it is served from another device than {disk.path}")
    if writer := _writer({(status.st_dev, status.st_ino)}, {status.st_rdev, os.makedev(*disk.physical)} - {0}):
        raise CannotTrackError(f"{writer} may write to it, too")
    return disk.physical, offset


def _writer(files: set[tuple[int, int]], devices: set[int]) -> str | None:
    """Return a process that has one of these open for writing, as QEMU has that serves an emulated disk."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, IndexError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError, IndexError):
                    if not os.readlink(f"/proc/{pid}/fd/{number}").startswith("/"):
                        continue  # pipes and sockets: most of them
                    status = os.stat(f"/proc/{pid}/fd/{number}")
                    if (status.st_dev, status.st_ino) not in files and status.st_rdev not in devices:
                        continue
                    flags = Path(f"/proc/{pid}/fdinfo/{number}").read_text().split("flags:")[1].split()[0]
                    if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
                        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text(errors='replace').strip()})"
    return None


def sysfs(device: Device, name: str) -> str:
    """Read an attribute of a block device. Raises OSError."""
    return Path(f"/sys/dev/block/{device[0]}:{device[1]}/{name}").read_text(errors="surrogateescape").rstrip("\n")


def device_path(device: Device) -> str:
    """Return the path of a block device below /dev. Raises CannotTrackError, OSError."""
    match = re.search("^DEVNAME=(.+)$", sysfs(device, "uevent"), re.MULTILINE)
    if match is None:
        raise CannotTrackError(f"there is no device {device[0]}:{device[1]}")
    return f"/dev/{match[1]}"


def whole_disk(device: Device) -> Device:
    """Return the disk that a partition belongs to; any other device itself."""
    if not os.path.exists(f"/sys/dev/block/{device[0]}:{device[1]}/partition"):
        return device
    major, minor = sysfs(device, "../dev").split(":")
    return int(major), int(minor)
