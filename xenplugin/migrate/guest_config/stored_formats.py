"""How this host stores the disks of an arriving guest, as its configuration has it: the setting `formats` applied.
Pure but for one look at each disk."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

from xenplugin.config import Config
from xenplugin.image.formats.kinds import RAW, Format
from xenplugin.xen.disk_formats import LIBXL, QEMU, is_device, usable


def with_formats(
    fields: Mapping[str, Any], config: Config, moved: Container[str], device: Callable[[str], bool] = is_device
) -> dict[str, Any]:
    """Return the configuration `fields` (libxl's, as JSON, with the paths of this host) with the formats that the
    disks at the paths `moved` have here. `device`: whether a path is a block device, which is always raw. Where a
    format changes, libxl chooses the backend. Raises RefusedError."""
    disks = []
    for disk in fields.get("disks", ()):
        path, name = disk.get("pdev_path"), QEMU.get(disk.get("format", RAW))
        cd = disk.get("is_cdrom") and not disk.get("readwrite")  # arrives as it is
        if path in moved and name is not None and not cd:
            here = RAW if device(path) else usable(config.stored(Format(name))).name
            if here != name:
                disk = {key: value for key, value in disk.items() if key != "backend"} | {"format": LIBXL[here]}
        disks.append(disk)
    return {**fields, "disks": disks} if disks else dict(fields)
