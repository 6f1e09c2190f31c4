"""The mounts of this mount namespace, from /proc/self/mountinfo."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Mount:
    """What is mounted at the path `where`: the file system on the device `number` (st_dev of its files), mounted
    from `source`. `kind` is its type, `writable` whether it may be written to through any of its mounts."""

    number: int
    source: str
    where: str
    kind: str
    writable: bool


def mounts() -> Iterator[Mount]:
    """Yield all mounts; none if they cannot be read."""
    try:
        with open("/proc/self/mountinfo", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(" ")
        major, minor = fields[2].split(":")
        kind, source, options = fields[fields.index("-") + 1 :][:3]
        yield Mount(
            os.makedev(int(major), int(minor)), _plain(source), _plain(fields[4]), kind, "rw" in options.split(",")
        )


def mounts_of(numbers: set[int]) -> Iterator[Mount]:
    """Yield the mounts of the block devices `numbers`."""
    for mount in mounts():
        # btrfs and some others show a number of their own, but their source is the device's name.
        if mount.number in numbers or is_device(mount.source, numbers):
            yield mount


def is_device(name: str, numbers: set[int]) -> bool:
    """Return whether the path `name` is one of the block devices `numbers`."""
    if not name.startswith("/"):
        return False
    try:
        status = os.stat(name)
    except OSError:
        return False
    return stat.S_ISBLK(status.st_mode) and status.st_rdev in numbers


def _plain(text: str) -> str:
    """Return the text that mountinfo shows with octal escapes, such as \\040 for a space."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), os.fsencode(text)))
