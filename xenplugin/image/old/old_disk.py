"""Records of the old disks on this host: one small JSON file for each, in `left/` of the state directory. A guest's
old configuration file is recorded as a disk of the kind CONFIG.

A record is there, durably, before the disk gives up its name, and until it has it back or is removed. So after a
crash the record says where to look, and the disk itself says how far it got (image.old.moving).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from xenplugin.image.field_types import typed
from xenplugin.image.files import os_errors, remove, sync_directory, write_atomically
from xenplugin.image.old import volume
from xenplugin.image.small_file import read_small

FORMAT = 1
FOLDER = "left"
#: What a disk is: a file and a logical volume have a name to give up, other block devices do not. CONFIG: the
#: guest's configuration file.
FILE, VOLUME, DEVICE, CONFIG = "file", "volume", "device", "config"
_LARGEST = 1 << 16


@dataclass(frozen=True)
class OldDisk:
    """What was the disk `path` of a guest. It lies under `aside`, or still under `path` if the two are equal.

    `storage` is FILE, VOLUME, DEVICE or CONFIG. `path` is as the guest had it, for a file with symbolic links
    resolved.
    `size` in bytes; `device` and `inode`: of a file; `volume`: the uuid of a logical volume, `name` its own name
    once it has given that up. The guest `guest` with the uuid `uuid` left for `host` by the migration with the id
    `migration` at `left` (seconds of the epoch). `unwanted`: it is removed once the guest runs there. `returning`:
    the id of the migration that last began to bring the guest back, "" for none. `links`: the symbolic links to a
    configuration file that are removed with its name, each with its text."""

    path: str
    aside: str
    storage: str
    size: int
    guest: str
    uuid: str
    host: str
    migration: str
    left: float
    device: int = 0
    inode: int = 0
    volume: str = ""
    name: str = ""
    unwanted: bool = False
    returning: str = ""
    links: tuple[tuple[str, str], ...] = ()

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.storage in (FILE, CONFIG)

    @property
    def file_name(self) -> str:
        """Name of the record's file."""
        return f"{self.migration}-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]}.json"

    def is_at(self, path: str) -> bool:
        """Return whether it is the file, volume or device at `path`, whatever that is called."""
        if self.storage == VOLUME:
            return volume.uuid_of(path) == self.volume
        try:
            status = os.stat(path)
            if self.is_file:
                return (status.st_dev, status.st_ino) == (self.device, self.inode)
            return status.st_rdev != 0 and status.st_rdev == os.stat(self.path).st_rdev
        except (OSError, ValueError):
            return False

    def had(self, path: str) -> bool:
        """Return whether `path` is the name that it had."""
        real = os.path.realpath(path)
        return self.path in ((real,) if self.is_file else (path, real))


def write(state_dir: Path, old: OldDisk) -> None:
    """Put the record on disk, durably, in place of an earlier one. Raises ImageError."""
    folder = state_dir / FOLDER
    with os_errors("write", str(folder / old.file_name)):
        new = not folder.is_dir()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(folder / old.file_name, json.dumps({"format": FORMAT, **asdict(old)}, indent=1).encode())
        if new:
            sync_directory(str(state_dir))


def forget(state_dir: Path, old: OldDisk) -> None:
    """Remove the record, durably; does nothing if it is gone. Raises ImageError."""
    path = state_dir / FOLDER / old.file_name
    with os_errors("remove", str(path)):
        remove(str(path))
        if path.parent.is_dir():
            sync_directory(str(path.parent))


def remove_drafts(state_dir: Path, migration: str) -> None:
    """Remove what a killed process has left half-written of this migration's records. Raises ImageError."""
    for path in (state_dir / FOLDER).glob(f".{migration}-*.json.new"):
        with os_errors("remove", str(path)):
            remove(str(path))


def read_all(state_dir: Path) -> tuple[list[OldDisk], list[tuple[Path, str]]]:
    """Return all records, the oldest first, and each file there that is not a valid record, with the reason. Raises
    ImageError if the directory cannot be read."""
    folder = state_dir / FOLDER
    with os_errors("look into", str(folder)):
        paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    found: list[OldDisk] = []
    unreadable = []
    for path in paths:
        try:
            found.append(_read(path))
        except FileNotFoundError:  # removed meanwhile
            continue
        except OSError as error:
            unreadable.append((path, error.strerror or str(error)))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            unreadable.append((path, f"{type(error).__name__}: {error}"))
    return sorted(found, key=lambda old: old.left), unreadable


def of_migration(state_dir: Path, migration: str) -> list[OldDisk]:
    """Return those that were left by this migration. Raises ImageError."""
    return [old for old in read_all(state_dir)[0] if old.migration == migration]


def those_of(state_dir: Path, path: str) -> Iterator[OldDisk]:
    """Yield those that had the name `path`, the newest first. Raises ImageError."""
    return (old for old in reversed(read_all(state_dir)[0]) if old.had(path))


def mark_returning(state_dir: Path, uuid: str, migration: str) -> None:
    """Note with each old disk of the guest that this migration brings the guest back. Raises ImageError."""
    for old in read_all(state_dir)[0]:
        if old.uuid == uuid:
            write(state_dir, replace(old, returning=migration))


def _read(path: Path) -> OldDisk:
    """Raises OSError; ValueError, KeyError or TypeError for anything else than a record."""
    values: dict[str, Any] = dict(json.loads(read_small(path, _LARGEST)))
    if values.pop("format") != FORMAT:
        raise ValueError("another version of xenplugin wrote it")
    values["links"] = tuple((str(link), str(text)) for link, text in values.get("links", ()))
    old = typed(OldDisk(**values))
    if old.storage not in (FILE, VOLUME, DEVICE, CONFIG) or old.file_name != path.name:
        raise ValueError("it is not the record of an old disk")
    return old
