"""The configuration file of a guest that arrives: what it is to be here, and when it gets its name.

The source sends it in notes (migrate/guest_config/leaving_config.py). What is on disk at each instant, for a file
NAME:

1. The migration's record has NAME, and the name beside it, .NAME.xenplugin-ID.
2. The file lies there, with this host's paths, formats and bridges, durable. Nothing starts it from there.
3. Once the record says `running`: the links in /etc/xen/auto, durable; then NAME, durable. What this guest had left
   behind here under NAME is removed; if none has come, that gets its name back.

If the record says `refused`, the file beside NAME is removed. Each step may be done again after a crash. Nothing
here ends a migration: what cannot be done with the file is a notice.
"""

from __future__ import annotations

import base64
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from xenplugin.config import Config
from xenplugin.errors import PeerError, RefusedError, XenpluginError
from xenplugin.image.beside import fitting
from xenplugin.image.files import os_errors, remove, rename_new, sync_directory
from xenplugin.image.old import aside_name, config_file, moving, old_disk
from xenplugin.image.old.old_disk import CONFIG, OldDisk
from xenplugin.migrate.guest_config.leaving_config import MOST_LINKS, folder_beside, plain_name
from xenplugin.migrate.guest_config.mapped_config import mapped
from xenplugin.migrate.guest_config.stored_formats import with_formats
from xenplugin.migrate.ownership.current_record import CurrentRecord
from xenplugin.migrate.ownership.records import ConfigNote, Record
from xenplugin.migrate.ownership.states import OwnershipState, Role
from xenplugin.xen import config_text, dry_run, guest_file
from xenplugin.xen.guest import script_of
from xenplugin.xen.xl import find

Notify = Callable[[str], None]


class ArrivingConfig:
    """The configuration file of the guest whose migration `record` is about."""

    def __init__(self, config: Config, record: CurrentRecord, notify: Notify) -> None:
        self._config = config
        self._record = record
        self._notify = notify
        self._data = bytearray()

    def take(self, note: Any) -> bool:
        """Take a note of the source. Returns True after the last one; the file then lies beside its name, or the
        administrator knows why not. Raises PeerError for a note that makes no sense."""
        record = self._record.record
        if record is None or record.config is not None or not isinstance(note, dict):
            raise PeerError("the source sent a configuration file twice, or before the guest")
        if "name" not in note:
            try:
                self._data += base64.b64decode(note["data"], validate=True)
            except (KeyError, TypeError, ValueError):
                raise PeerError("the source sent a malformed configuration file") from None
            if len(self._data) > guest_file.LARGEST:
                raise PeerError("the source sent a configuration file that is too large")
            return False
        name, links = note["name"], note.get("links")
        if not isinstance(links, list) or len(links) > MOST_LINKS or not all(map(plain_name, [name, *links])):
            raise PeerError(f"the source sent a configuration file with a name that is not accepted: {name!r}")
        try:
            self._prepare(record, name, links)
        except XenpluginError as exc:
            self._notify(f"the configuration file of {record.name} cannot be written here: {exc}")
        return True

    def _prepare(self, record: Record, name: str, links: list[str]) -> None:
        """Write the file beside the name that it is to have."""
        old = next(_left(self._config.state_dir, record), None)
        path = old.path if old and os.path.isdir(os.path.dirname(old.path)) else str(guest_file.FOLDER / name)
        data, replaces, leading = bytes(self._data), 0, _links(path, links, old)
        try:
            data, replaces = self._here(record, data), _own(record, path)
        except PeerError as why:
            wanted, path, leading = path, _kept_name(record, path), ()
            self._notify(f"{wanted}: {why.message}; it will be {path}, unchanged: mend it, then rename it")
        beside = os.path.join(folder_beside(path), fitting(f".{name}", f".xenplugin-{record.id[:12]}"))
        self._record.note(config=ConfigNote(path, leading, beside=beside, replaces=replaces))
        _write(beside, data, _status(path) if replaces else _status(old.aside) if old else None)

    def _here(self, record: Record, data: bytes) -> bytes:
        """Return the file as it is to be on this host. Raises PeerError if it cannot be made so."""
        text = data.decode("utf-8", "surrogateescape")
        before = _parsed(data)
        if not guest_file.is_of(text, before, record.name, record.uuid):
            raise PeerError(f"it is not the configuration of {record.name} as it arrives here")
        try:
            come = {disk.path for disk in record.disks}
            moved = {disk.path for disk in record.disks if not disk.stays}
            after = with_formats(mapped(before, self._config), self._config, moved)
        except RefusedError as error:
            raise PeerError(error.message) from None
        for disk in after.get("disks", ()):
            if disk.get("is_cdrom") or script_of(disk):
                continue
            if (at := disk.get("pdev_path")) and at not in come:
                raise PeerError(f"it names the disk {at}, which has not come along")
        edited = config_text.edited(text, before, after).encode("utf-8", "surrogateescape")
        if _meaning(before if edited == data else _parsed(edited)) != _meaning(after):
            raise PeerError("the paths, formats and bridges of this host cannot be put into it")
        return edited


def finish(state_dir: Path, one: Record, notify: Notify) -> None:
    """The migration `one` is over here: give the file that has come its name if the guest runs here, otherwise
    remove it."""
    if one.role is not Role.DESTINATION:
        return
    try:
        if one.state is not OwnershipState.RUNNING:
            if one.config is not None:
                with os_errors("remove", one.config.beside):
                    remove(one.config.beside)
            return
        there = one.config is not None and _install(one, one.config, notify)
        for old in _left(state_dir, one):
            if there and one.config is not None and one.config.path == old.path:
                moving.remove_old(state_dir, old)
            elif not os.path.lexists(old.path):
                config_file.give_back(state_dir, old)
                notify(f"{old.path} has its name again")
    except XenpluginError as exc:
        notify(f"the configuration file of {one.name} is not where it should be: {exc}")


def _left(state_dir: Path, one: Record) -> Iterator[OldDisk]:
    """Yield the configuration files that the guest has left behind here, the newest first."""
    found = reversed(old_disk.read_all(state_dir)[0])
    return (old for old in found if old.storage == CONFIG and old.returning == one.id)


def _install(one: Record, file: ConfigNote, notify: Notify) -> bool:
    """Give the file its name and its links. Returns whether it has got them now."""
    if not os.path.lexists(file.beside):
        return False
    path, links, there = file.path, file.links, _status(file.path)
    if there is not None and not (stat.S_ISREG(there.st_mode) and there.st_ino == file.replaces):
        path, links = _kept_name(one, path), ()
        notify(f"{file.path} belongs to something else by now: the configuration of {one.name} is {path}")
    for taken in config_file.make_links(links):
        notify(f"{taken} is something else than a link to {path}: it stays as it is")
    with os_errors("rename", file.beside), suppress(FileNotFoundError):  # another process has done it
        if path == file.path and there is not None:
            _make_room(one, file, notify)
        rename_new(file.beside, path)
        for folder in {os.path.dirname(file.beside), os.path.dirname(path)}:
            sync_directory(folder)
        return path == file.path
    return False


def _make_room(one: Record, file: ConfigNote, notify: Notify) -> None:
    """Remove the older file if it is the same, otherwise rename it. Raises OSError."""
    older, newer = guest_file.read(file.path), guest_file.read(file.beside)
    if older and newer and older.data == newer.data:
        remove(file.path)
    else:
        kept = _free(file.path, aside_name.replaced_file, one)
        rename_new(file.path, kept)
        notify(f"{file.path} is new, from {one.peer.host}; the older file is {kept}")


def _own(record: Record, path: str) -> int:
    """Return the inode of the file `path` if it is an older configuration of the same guest, 0 if there is no file.
    Raises PeerError for anything else."""
    if (there := _status(path)) is None:
        return 0
    file = guest_file.read(path)
    with suppress(dry_run.UnreadableConfig):
        if file and guest_file.is_of(file.text, _parsed(file.data), record.name, record.uuid):
            return there.st_ino
    raise PeerError(f"there is such a file already, which is not the configuration of {record.name}")


def _links(path: str, names: list[str], old: OldDisk | None) -> tuple[tuple[str, str], ...]:
    """Return the links in auto to the file `path`, each with the text that it had here, if it had one."""
    if folder_beside(path) != os.path.dirname(path):  # it is in auto itself
        return ()
    had = dict(old.links if old and old.path == path else ())
    links = (str(guest_file.auto() / name) for name in names)
    return tuple((link, had.get(link, path)) for link in links)


def _parsed(data: bytes) -> Mapping[str, Any]:
    """Return what xl of this host reads in a configuration. Raises PeerError."""
    fd = os.memfd_create("guest-configuration")
    try:
        os.write(fd, data)
        return dry_run.configuration(find(), ["create", f"/dev/fd/{fd}"], [fd])
    finally:
        os.close(fd)


def _meaning(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration without its uuid, which xl makes up anew each time if there is none."""
    about = {key: value for key, value in fields.get("c_info", {}).items() if key != "uuid"}
    return {**fields, "c_info": about}


def _write(path: str, data: bytes, like: os.stat_result | None) -> None:
    """Write a new file, durably, with owner and permissions of `like`. Raises ImageError."""
    with os_errors("write", path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                if like is not None:
                    os.fchown(fd, like.st_uid, like.st_gid)
                    os.fchmod(fd, stat.S_IMODE(like.st_mode) & 0o777)
                os.fsync(fd)
        except OSError:
            remove(path)
            raise
        sync_directory(os.path.dirname(path))


def _kept_name(one: Record, path: str) -> str:
    return _free(path, aside_name.arrived_file, one)


def _free(path: str, naming: Callable[[str, str, float, int], str], one: Record) -> str:
    """Return a path that is free, beside `path`, for a file that is not started."""
    folder, name, now = folder_beside(path), os.path.basename(path), time.time()
    names = (naming(name, one.peer.host, now, number) for number in count())
    return next(found for each in names if not os.path.lexists(found := os.path.join(folder, each)))


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None
