"""Where the disks of arriving guests go: the setting `paths`. Pure."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

from xenplugin.errors import RefusedError
from xenplugin.image.path_text import canonical

#: Pairs of a path of the source and the path here, the longest first.
Mapping: TypeAlias = tuple[tuple[str, str], ...]


def parse(value: Any) -> Mapping:
    """Return the mapping that a configuration file has as a table. Raises ValueError."""
    if not isinstance(value, dict | tuple):
        raise ValueError('it must be a table like {"/from" = "/to"}')
    for path in (path for pair in dict(value).items() for path in pair):
        if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise ValueError(f"{path!r} must be an absolute path without '..'")
    pairs = [(_plain(old), _plain(new)) for old, new in dict(value).items()]
    if len({old for old, _ in pairs}) < len(pairs):
        raise ValueError("a path stands there twice")
    return tuple(sorted(pairs, key=lambda pair: (-len(pair[0]), pair)))


def mapped(mapping: Mapping, path: str) -> str:
    """Return the path on this host of the disk that is at `path` on the source: the longest path in `mapping` that
    contains it is replaced. Raises RefusedError for a path that is not absolute, or contains '..' or control
    characters."""
    try:
        path = canonical(path)
    except ValueError:
        path = ""
    if not path.startswith("/") or ".." in path.split("/") or re.search("[\x00-\x1f\x7f]", path):
        raise RefusedError(
            f"the path {path!r} from another host is not accepted",
            hint="give the guest's disk an absolute path without '..'",
        )
    path = _plain(path)
    for old, new in mapping:
        if path == old or path.startswith(old.rstrip("/") + "/"):
            return _plain(f"{new}/{path[len(old) :]}")
    return path


def _plain(path: str) -> str:
    return re.sub("/+", "/", path).rstrip("/") or "/"
