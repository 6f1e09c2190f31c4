"""Whether this host has what images in other formats than raw need."""

from __future__ import annotations

import shutil

from xenplugin.image.formats import nbd, qemu

_PROGRAMS = ("qemu-img", "qemu-storage-daemon")


def refuse_missing() -> None:
    """Raise RefusedError, with the package's name, if something is missing."""
    for program in _PROGRAMS:
        if shutil.which(program) is None:
            raise qemu.missing(program)
    nbd.library()
