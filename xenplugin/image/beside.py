"""Names of the files that lie beside another one for a while: partial image, journal, draft, spare. Pure.

    disk.img   has beside it   .disk.img.xenplugin-part

A name is bytes, at most LONGEST. Where that is too few for a whole name and what is added to it, the name is cut,
and a digest of the whole name follows. So names stay different, and each is found again from the path alone:

    .disk-of-the-[...]~5e0c1f9f64d1a7b2.xenplugin-part
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

#: Bytes of a file's name (NAME_MAX of Linux).
LONGEST = 255
_DIGITS = 16


def partial_name(path: str) -> str:
    """Return the path of the partial image of the target file `path`."""
    return _hidden(path, ".xenplugin-part")


def journal_name(path: str) -> Path:
    """Return the path of the journal of the target file `path`."""
    return Path(_hidden(path, ".xenplugin-journal"))


def draft_name(path: str) -> str:
    """Return the path of the next version of the file `path` while it is written."""
    return _hidden(path, ".new")


def spare_name(path: str) -> str:
    """Return the path of the file that holds space for the next version of the file `path`."""
    return _hidden(path, ".spare")


def fitting(name: str, suffix: str, fits: Callable[[str], bool] | None = None) -> str:
    """Return `name` and `suffix`, with as much of the name as fits: in a file's name, if `fits` says nothing else.
    Raises ValueError if nothing of it does."""
    fits = fits or _is_name
    # Whole characters are cut: some file systems take no name that is not valid UTF-8.
    while name and not fits(name + suffix):
        name = name[:-1]
    if not name:
        raise ValueError(f"no name with {suffix} at its end is short enough")
    return name + suffix


def _hidden(path: str, suffix: str) -> str:
    folder, name = os.path.split(path)
    if not _is_name(f".{name}{suffix}"):
        suffix = f"~{hashlib.sha256(os.fsencode(name)).hexdigest()[:_DIGITS]}{suffix}"
    return os.path.join(folder, fitting(f".{name}", suffix))


def _is_name(name: str) -> bool:
    return len(os.fsencode(name)) <= LONGEST
