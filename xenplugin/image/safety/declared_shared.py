"""The setting `shared`: the disks that an administrator has declared as shared by both hosts."""

from __future__ import annotations

import os
from collections.abc import Sequence


def names(declared: Sequence[str], path: str) -> bool:
    """Return whether one of the `declared` paths names the disk `path`, or a folder that it is in. A link to the
    same disk, such as those in /dev/disk, names it as well."""
    real = os.path.realpath(path)
    return any(_within(path, each) or _within(real, os.path.realpath(each)) for each in declared)


def _within(path: str, other: str) -> bool:
    return path == other or path.startswith(f"{other.rstrip('/')}/")
