"""Finds a guest's configuration file on this host: in /etc/xen, or behind an entry of /etc/xen/auto.

Which guest a file is of is never guessed from its name or text: xl reads it (xen.dry_run). But xl is started only
for files that mention the guest's name or uuid.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xenplugin.errors import PeerError
from xenplugin.image.old.aside_name import is_aside
from xenplugin.image.small_file import read_small
from xenplugin.xen import config_text

#: The folder of configuration files; a host that starts starts what its folder `auto` has.
FOLDER = Path("/etc/xen")
#: Bytes of a configuration file. Real ones have some kilobytes.
LARGEST = 256 << 10

Parse = Callable[[str], Mapping[str, Any]]
Notify = Callable[[str], None]


@dataclass(frozen=True)
class GuestFile:
    """A guest's configuration file: its `path` with symbolic links resolved, what is in it, and the links in `auto`
    that lead to it, each with its text. `started`: a host that starts starts the guest from it. `modified`: its
    time of modification (nanoseconds)."""

    path: str
    data: bytes
    modified: int
    links: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """What is in it, as text; bytes that are not UTF-8 are escaped."""
        return self.data.decode("utf-8", "surrogateescape")

    @property
    def started(self) -> bool:
        """Whether this host starts the guest when it starts."""
        return bool(self.links) or os.path.dirname(self.path) == str(auto())


def auto() -> Path:
    """The folder whose entries a host starts."""
    return FOLDER / "auto"


def find(name: str, uuid: str, parse: Parse, notify: Notify) -> GuestFile | None:
    """Return the configuration file of the guest `name` with this uuid; None if there is none, or if it cannot be
    told, which `notify` gets a line about. `parse` returns what xl reads in a file; it raises PeerError."""
    mine = [file for file in _files() if _is_of(file, name, uuid, parse, notify)]
    started = [file for file in mine if file.started]
    if len(started) == 1 or len(mine) == 1:
        return (started or mine)[0]
    if mine:
        several = ", ".join(file.path for file in mine)
        notify(f"{name} has several configuration files, so none moves along: {several}; keep one of them")
    else:
        notify(f"{name} has no configuration file in {FOLDER}, so none moves along")
    return None


def is_of(text: str, fields: Mapping[str, Any], name: str, uuid: str) -> bool:
    """Return whether the text, in which xl reads `fields`, is the configuration of this guest: it has its uuid, or
    its name and no uuid (xl makes one up then)."""
    about = fields.get("c_info", {})
    if str(about.get("uuid", "")).lower() == uuid:
        return True
    return bool(about.get("name") == name) and not config_text.assigns(text, "uuid")


def _is_of(file: GuestFile, name: str, uuid: str, parse: Parse, notify: Notify) -> bool:
    words = "|".join(map(re.escape, (name, uuid)))
    if not re.search(rf"(?<![\w.-])(?:{words})(?![\w.-])", file.text, re.IGNORECASE):
        return False
    named = name in (Path(path).name.partition(".")[0] for path in (file.path, *(link for link, _ in file.links)))
    try:
        fields = parse(file.path)
    except PeerError as error:
        if named:
            notify(f"{file.path} is left alone, because xl cannot read it: {error.message}")
        return False
    found = is_of(file.text, fields, name, uuid)
    if named and not found and fields.get("c_info", {}).get("name") == name:
        notify(f"{file.path} is left alone, because it has another uuid than {name}")
    return found


def _files() -> Iterator[GuestFile]:
    """Yield the files that may be configurations of guests, each once."""
    links: dict[str, list[tuple[str, str]]] = {}
    for folder in (FOLDER, auto()):
        for entry in _entries(folder):
            known = links.setdefault(os.path.realpath(entry), [])
            if folder == auto() and os.path.islink(entry):
                known.append((entry, os.readlink(entry)))
    for path, those in links.items():
        if (file := read(path)) is not None:
            yield replace(file, links=tuple(those))


def _entries(folder: Path) -> list[str]:
    """Return the paths of the files in a folder, without hidden and old ones, and backups of editors."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [
        os.path.join(folder, name)
        for name in names
        if not (name.startswith(".") or name.endswith("~") or is_aside(name)) and os.path.isfile(folder / name)
    ]


def read(path: str) -> GuestFile | None:
    """Read the regular file `path`, which is no symbolic link; None for anything else, and for a larger one than a
    configuration can be."""
    try:
        return GuestFile(path, read_small(path, LARGEST), os.lstat(path).st_mtime_ns)
    except OSError:
        return None
