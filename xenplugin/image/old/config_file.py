"""Puts the configuration file of a guest that has left aside, and gives its name back.

What is on disk at each instant, for a file NAME and the links that lead to it:

1. NAME and its links.
2. The same, and a record that says under which name it will lie (image.old.old_disk), durable.
3. The file lies under that name, durable. The links lead nowhere.
4. The links are removed, durable.

Giving back goes the other way round: links, name, and the record is removed last. Each function may be called again
after a crash at any point.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from xenplugin.errors import ImageError
from xenplugin.image.files import os_errors, remove, rename_new, sync_directory
from xenplugin.image.old import moving, old_disk
from xenplugin.image.old.old_disk import CONFIG, OldDisk

#: Each link's path and text.
Links = Sequence[tuple[str, str]]


def put_aside(
    state_dir: Path, path: str, links: Links, folder: str, *, guest: str, uuid: str, host: str, migration: str
) -> OldDisk | None:
    """Record that the guest has left the file `path` behind, rename it, into `folder`, and remove the links to it;
    durable on return. Returns the record, which has `aside` equal to `path` if the file cannot be renamed; None if
    there is no such file (any more). Raises ImageError."""
    old = _recorded(state_dir, migration)
    if old is None or not old.is_at(old.aside):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return None
        old = OldDisk(
            path, path, CONFIG, status.st_size, guest=guest, uuid=uuid, host=host, migration=migration,
            left=time.time(), device=status.st_dev, inode=status.st_ino, links=tuple(links),
        )  # fmt: skip
        if moving.rename_file(state_dir, old, folder, lambda text: None) is not None:
            old_disk.write(state_dir, old)
        old = _recorded(state_dir, migration) or old
    for link, text in old.links:
        with os_errors("remove", link):
            if _text(link) == text:
                remove(link)
    _sync(old.links)
    return old


def _recorded(state_dir: Path, migration: str) -> OldDisk | None:
    return next((one for one in old_disk.of_migration(state_dir, migration) if one.storage == CONFIG), None)


def give_back(state_dir: Path, old: OldDisk) -> None:
    """Give the file its name and its links back, and remove the record; durable on return. Raises ImageError if
    something else has the name: nothing is overwritten."""
    if taken := make_links(old.links):
        raise ImageError(f"cannot make the link {taken[0]} again: something else has its name")
    with os_errors("rename", old.aside):
        try:
            if old.aside != old.path:
                rename_new(old.aside, old.path)
        except FileExistsError:
            raise ImageError(f"{old.aside} cannot get its name again: something else has it") from None
        except FileNotFoundError:  # it has its name again, or was removed by hand
            pass
        for folder in {os.path.dirname(old.path), os.path.dirname(old.aside)}:
            sync_directory(folder)
    old_disk.forget(state_dir, old)


def make_links(links: Links) -> list[str]:
    """Make the links that are not there; durable on return. Returns the paths of those that something else has.
    Raises ImageError."""
    taken = []
    for path, text in links:
        with os_errors("make the link", path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            try:
                os.symlink(text, path)
            except FileExistsError:
                leads = os.path.realpath(os.path.join(os.path.dirname(path), text))
                if _text(path) is None or os.path.realpath(path) != leads:
                    taken.append(path)
    _sync(links)
    return taken


def _text(path: str) -> str | None:
    with suppress(OSError):
        return os.readlink(path)
    return None


def _sync(links: Links) -> None:
    for folder in {os.path.dirname(path) for path, _ in links}:
        with os_errors("change", folder):
            sync_directory(folder)
