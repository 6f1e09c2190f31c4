"""The formats of disks as libxl and QEMU call them, and which a guest's disk can have."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from xenplugin.errors import RefusedError
from xenplugin.image.formats.kinds import RAW, Format

#: libxl's names of the formats that a guest's disk can have, by QEMU's: those in which QEMU can be asked about it.
#: (Not qed: QEMU 7.2 ends with the guest if two of its writes meet a bitmap that is exchanged.)
LIBXL = {RAW: RAW, "qcow2": "qcow2", "vpc": "vhd"}
#: QEMU's names, by libxl's.
QEMU = {theirs: ours for ours, theirs in LIBXL.items()} | {"unknown": RAW}


def is_device(path: str) -> bool:
    """Return whether there is a block device at `path`."""
    with suppress(OSError):
        return stat.S_ISBLK(os.stat(path).st_mode)
    return False


def usable(format: Format) -> Format:
    """Return `format`, in which this host is to store a guest's disk. Raises RefusedError if xl cannot use it."""
    if format.name not in LIBXL:
        raise RefusedError(
            f"a guest's disk cannot be stored as {format.called}, as formats says: xl does not know that",
            hint=f"name one of {', '.join(LIBXL)} in formats in xenplugin.conf of the far host",
        )
    return format
