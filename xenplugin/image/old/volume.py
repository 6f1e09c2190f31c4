"""Logical volumes, through LVM's own tools.

A volume is known by its uuid, which stays when it is renamed. For an active one the kernel shows it, so that no
tool has to be started to tell a volume from other devices. Every call has a time limit. A renamed volume keeps its
device number, so a guest that has it attached does not notice.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass

from xenplugin.errors import ImageError
from xenplugin.external_tool import output_of

#: Where the kernel shows block devices, and where volumes have their names.
SYSFS, DEV = "/sys/dev/block", "/dev"
_PATIENCE = 60.0
_FIELDS = "vg_name,lv_name,vg_uuid,lv_uuid,lv_size"


@dataclass(frozen=True)
class Volume:
    """A logical volume. `uuid`: those of its group and its own, as the kernel shows them; `size` in bytes."""

    group: str
    name: str
    uuid: str
    size: int

    @property
    def path(self) -> str:
        """The name of its device, which is there while it is active."""
        return f"{DEV}/{self.group}/{self.name}"


def uuid_of(path: str) -> str | None:
    """Return the uuid of the active volume that the device `path` is; None for anything else."""
    with suppress(OSError, ValueError):
        status = os.stat(path)
        if stat.S_ISBLK(status.st_mode):
            number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
            with open(f"{SYSFS}/{number}/dm/uuid", encoding="ascii") as file:
                kind, _, uuid = file.read().strip().partition("-")
            return uuid if kind == "LVM" and "-" not in uuid else None
    return None


def find(uuid: str) -> Volume | None:
    """Return the volume with this uuid, active or not; None if there is none. Raises ImageError if LVM fails."""
    report = _run("lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", _FIELDS)
    try:
        for row in (row for part in json.loads(report)["report"] for row in part["lv"]):
            if (row["vg_uuid"] + row["lv_uuid"]).replace("-", "") == uuid:
                return Volume(row["vg_name"], row["lv_name"], uuid, int(row["lv_size"]))
    except (ValueError, KeyError, TypeError):
        raise ImageError("lvs printed something other than a list of volumes") from None
    return None


def rename(volume: Volume, name: str) -> None:
    """Rename the volume, durably. Raises ImageError, also if another one has the name."""
    _run("lvrename", volume.group, volume.name, name)


def deactivate(volume: Volume) -> None:
    """Remove the volume's device, until it is activated again. Raises ImageError if it is in use."""
    _run("lvchange", "--activate", "n", f"{volume.group}/{volume.name}")


def activate(volume: Volume) -> None:
    """Make the volume's device. Raises ImageError."""
    _run("lvchange", "--activate", "y", f"{volume.group}/{volume.name}")


def remove(volume: Volume) -> None:
    """Remove the volume with its data. Raises ImageError if it is in use."""
    _run("lvremove", "--force", f"{volume.group}/{volume.name}")


def _run(*words: str) -> str:
    return output_of(words, _PATIENCE, ImageError, if_absent="install lvm2", env={"LVM_SUPPRESS_FD_WARNINGS": "1"})
