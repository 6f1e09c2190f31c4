"""What an arriving guest has on this host: the settings `paths`, `formats` and `bridges`. Pure."""

from __future__ import annotations

import re
from typing import Any

from xenplugin.errors import RefusedError
from xenplugin.image.formats.kinds import KEPT, RAW
from xenplugin.image.path_text import canonical, leads_nowhere_else

Table = tuple[tuple[str, str], ...]


def parse_paths(value: Any) -> Table:
    """Return pairs of a path of the source and the path here, the longest first, from a table. Raises
    ValueError."""
    pairs = _pairs(value, '{"/from" = "/to"}')
    for path in (path for pair in pairs for path in pair):
        if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise ValueError(f"{path!r} must be an absolute path without '..'")
    plain = [(_plain(old), _plain(new)) for old, new in pairs]
    if len({old for old, _ in plain}) < len(plain):
        raise ValueError("a path stands there twice")
    return tuple(sorted(plain, key=lambda pair: (-len(pair[0]), pair)))


def parse_bridges(value: Any) -> Table:
    """Return pairs of a bridge of the source and one of this host, from a table. Raises ValueError."""
    pairs = _pairs(value, '{"xenbr0" = "br0"}')
    for name in (name for pair in pairs for name in pair):
        # Open vSwitch: a VLAN and trunks may follow the name (vif-openvswitch of Xen's hotplug scripts).
        if not isinstance(name, str) or not re.fullmatch("[A-Za-z0-9_.:-]{1,64}", name):
            raise ValueError(f"{name!r} is not the name of a bridge")
    return tuple(sorted(pairs))


def parse_formats(value: Any) -> Table:
    """Return pairs of a format of the source and the one here from a table. Raises ValueError."""
    pairs = _pairs(value, '{"qcow2" = "raw"}')
    for name in (name for pair in pairs for name in pair):
        if name != RAW and name not in KEPT:
            raise ValueError(f"{name!r} is none of {RAW}, {', '.join(KEPT)}")
    return tuple(sorted(pairs))


def mapped_path(paths: Table, path: str) -> str:
    """Return the path on this host of what is at `path` on the source: the longest of `paths` that contains it is
    replaced. Raises RefusedError for a path that is not absolute, or contains '..' or control characters."""
    if not leads_nowhere_else(path):
        raise RefusedError(
            f"the path {path!r} from another host is not accepted",
            hint="give the guest's disk an absolute path without '..'",
        )
    path = _plain(canonical(path))
    for old, new in paths:
        if path == old or path.startswith(old.rstrip("/") + "/"):
            return _plain(f"{new}/{path[len(old) :]}")
    return path


def _pairs(value: Any, example: str) -> list[tuple[Any, Any]]:
    if not isinstance(value, dict | tuple):
        raise ValueError(f"it must be a table like {example}")
    return list(dict(value).items())


def _plain(path: str) -> str:
    return re.sub("/+", "/", path).rstrip("/") or "/"
