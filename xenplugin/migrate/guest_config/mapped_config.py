"""A guest's configuration as it is on this host: the settings `paths` and `bridges` applied to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from xenplugin.config import Config
from xenplugin.xen.config_text import FILES
from xenplugin.xen.guest import script_of

#: The bridge of an interface that names none, unless xl.conf says otherwise (libxl__device_nic_setdefault).
_USUAL_BRIDGE = "xenbr0"


def mapped(
    fields: Mapping[str, Any], config: Config, *, exists: Callable[[str], bool] = os.path.exists
) -> dict[str, Any]:
    """Return the configuration `fields` (libxl's, as JSON) with the disks' paths and the bridges of this host.
    (What a block script attaches has words of its own instead of a path.) The kernel and the ramdisk do not move:
    their paths are mapped if there is a file. Raises RefusedError for a path that is not accepted."""
    found = dict(fields)
    for kind in ("disks", "nics"):
        if kind in found:
            found[kind] = [dict(each) for each in found[kind]]
    for disk in found.get("disks", ()):
        if (path := disk.get("pdev_path")) and not script_of(disk):
            disk["pdev_path"] = config.mapped(path)
    for nic in found.get("nics", ()):
        bridge = nic.get("bridge") or _USUAL_BRIDGE
        if (here := config.bridge(bridge)) != bridge:
            nic["bridge"] = here
    if isinstance(about := found.get("b_info"), dict):
        found["b_info"] = about | {name: _file(about[name], config, exists) for name in FILES if name in about}
    return found


def _file(path: Any, config: Config, exists: Callable[[str], bool]) -> Any:
    usable = isinstance(path, str) and path.startswith("/")
    return here if usable and exists(here := config.mapped(path)) else path
