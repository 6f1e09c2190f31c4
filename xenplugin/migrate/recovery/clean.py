"""Removes the old disks that lie aside on this host (`xenplugin clean`), each of them only if nothing needs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xenplugin.errors import RefusedError
from xenplugin.image.old import moving, old_disk
from xenplugin.image.old.old_disk import OldDisk
from xenplugin.migrate.ownership import records
from xenplugin.migrate.ownership.states import FINAL

Notify = Callable[[str], None]


@dataclass(frozen=True)
class Removable:
    """An old disk, and the bytes that are free without it. If it has its own name, only its record is removed."""

    old: OldDisk
    size: int

    def as_json(self) -> dict[str, Any]:
        """Return the public JSON."""
        old = self.old
        return {"path": old.path, "aside": old.aside, "guest": old.guest, "uuid": old.uuid, "bytes": self.size}


def removable(state_dir: Path, notify: Notify) -> list[Removable]:
    """Return the old disks that may be removed. `notify` gets a line about each that may not. Raises ImageError."""
    found, unreadable = old_disk.read_all(state_dir)
    for path, why in unreadable:
        notify(f"{path} cannot be read ({why}), so it is left alone")
    free = []
    for old in found:
        if why_not := _needed(state_dir, old):
            notify(f"{old.aside} is left alone: {why_not}")
        else:
            free.append(Removable(old, moving.bytes_held(old)))
    return free


def remove(state_dir: Path, one: Removable) -> None:
    """Remove an old disk, or the record of one that has its own name again. Raises RefusedError if it is needed by
    now, ImageError."""
    with moving.kept_open(one.old), records.locked(state_dir):
        if why_not := _needed(state_dir, one.old):
            raise RefusedError(f"{one.old.aside} is left alone: {why_not}")
        if one.old not in old_disk.of_migration(state_dir, one.old.migration):
            raise RefusedError(f"the record of {one.old.aside} has changed meanwhile", hint="start again")
        moving.remove_old(state_dir, one.old)


def _needed(state_dir: Path, old: OldDisk) -> str | None:
    """Return why the disk may still be needed: its guest is on its way, or may still be resumed here."""
    known, unreadable = records.read_all(state_dir)
    if unreadable:
        return f"the record {unreadable[0].path} cannot be read"
    for one in known:
        if one.state not in FINAL and (one.uuid == old.uuid or one.id in (old.migration, old.returning)):
            how = "runs" if one.alive else "is not settled: run `xenplugin recover`"
            return f"a migration of {one.name} {how}"
    return None
