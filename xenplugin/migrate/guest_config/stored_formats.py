"""How this host stores the disks of an arriving guest, as its configuration has it: the setting `formats` applied.
Pure but for one look at each disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from typing import Any

from xenplugin.config import Config
from xenplugin.errors import RefusedError
from xenplugin.image.formats.kinds import RAW, Format

#: libxl's names of the formats that a guest's disk can have here, by QEMU's.
LIBXL = {RAW: RAW, "qcow2": "qcow2", "vpc": "vhd"}
_QEMU = {theirs: ours for ours, theirs in LIBXL.items()} | {"unknown": RAW}


def is_device(path: str) -> bool:
    """Return whether there is a block device at `path`."""
    with suppress(OSError):
        return stat.S_ISBLK(os.stat(path).st_mode)
    return False


def stored(format: Format, config: Config) -> Format:
    """Return how a file of this host stores the disk of a guest that the source stores as `format`. Raises
    RefusedError if xl cannot use that."""
    here = config.stored(format)
    if here.name not in LIBXL:
        raise RefusedError(
            f"a guest's disk cannot be stored as {here.called}, as the setting formats says: xl does not know that",
            hint=f"formats in xenplugin.conf of the far host: {format.name} to {', '.join(LIBXL)}",
        )
    return here


def with_formats(
    fields: Mapping[str, Any], config: Config, moved: Container[str], device: Callable[[str], bool] = is_device
) -> dict[str, Any]:
    """Return the configuration `fields` (libxl's, as JSON, with the paths of this host) with the formats that the
    disks at the paths `moved` have here. `device`: whether a path is a block device, which is always raw. Where a
    format changes, libxl chooses the backend. Raises RefusedError."""
    disks = []
    for disk in fields.get("disks", ()):
        path, name = disk.get("pdev_path"), _QEMU.get(disk.get("format", RAW))
        if path in moved and name is not None:
            here = RAW if device(path) else stored(Format(name), config).name
            if here != name:
                disk = {key: value for key, value in disk.items() if key != "backend"} | {"format": LIBXL[here]}
        disks.append(disk)
    return {**fields, "disks": disks} if disks else dict(fields)
