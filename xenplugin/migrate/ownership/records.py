"""Ownership records: what this host knows about a migration after every process of it has ended.

There is one small JSON file per migration and role, `<id>.source.json` or `<id>.destination.json`, in `migrations/`
of the state directory. A change is written atomically into reserved space (image.reserved_file): at each instant
the record of before or of after is there, whole, and a full disk does not prevent the change. Every change is made
under one lock and against what is on disk, not against what the process remembers, so that a record which another
process has settled meanwhile (the fence) cannot be moved on. A record that cannot be read is reported, never
guessed.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from xenplugin.errors import OwnershipError, RefusedError, shortage
from xenplugin.image.field_types import typed
from xenplugin.image.files import os_errors, sync_directory
from xenplugin.image.old import old_disk
from xenplugin.image.reserved_file import remove_reserved, write_reserved
from xenplugin.image.safety.committed import CommittedImage
from xenplugin.image.small_file import read_small
from xenplugin.image.state_folder import writable
from xenplugin.migrate.ownership import record_locks
from xenplugin.migrate.ownership.host_identity import HostIdentity
from xenplugin.migrate.ownership.states import FINAL, FIRST, TRANSITIONS, OwnershipState, Role, check
from xenplugin.xen.process import Process, process

FORMAT = 2
FOLDER = "migrations"
_ID = re.compile(r"[0-9a-f]{32}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LARGEST = 1 << 20
#: Why a disk stays where it is: both hosts share it; it is a CD image that the far host has.
SHARED, CD = "shared", "cd"


class Overtaken(OwnershipError):
    """Another process has moved the record on, so what was decided about it is out of date."""


@dataclass(frozen=True)
class DiskNote:
    """A disk of the guest on this host. `size` bytes; `placeholder`: the inode of the empty file that was made
    under its name, None if none was; `committed`: the complete image at the destination, None before. `stays`: at
    the destination, a disk that was there before and does not move: SHARED or CD; "" for one that moves."""

    path: str
    size: int
    placeholder: int | None = None
    committed: CommittedImage | None = None
    stays: str = ""


@dataclass(frozen=True)
class ConfigNote:
    """The guest's configuration file on this host, `path`, and the links that lead to it, each with its text.

    At the source it is what the guest leaves behind, last changed at `modified` (nanoseconds). At the destination
    it is what there is to be once the guest runs here: until then the file lies at `beside`. `replaces`: the inode
    of an older file of this guest under that name, 0 for none."""

    path: str
    links: tuple[tuple[str, str], ...] = ()
    modified: int = 0
    beside: str = ""
    replaces: int = 0


@dataclass(frozen=True)
class PeerNote:
    """How to reach the other host again: `ssh` and `host` as in `xl migrate -s SSH GUEST HOST`, `program` as in
    --remote-program. At the destination `ssh` is empty: it never calls back. `machine` and `key`: its identity
    (migrate/ownership/host_identity.py); `guest`: the guest's uuid there. Each is empty if it is not known."""

    host: str
    ssh: str = ""
    program: str = "xenplugin"
    machine: str = ""
    key: str = ""
    guest: str = ""

    @property
    def identity(self) -> HostIdentity:
        """Its identity, as it was when the migration began."""
        return HostIdentity(self.machine, self.key)

    def same(self, other: PeerNote) -> bool:
        """Return whether both are the same host, as far as is known."""
        return self.host == other.host and self.identity.same(other.identity) is True


@dataclass(frozen=True)
class Record:
    """One side's record. `began` and `changed` in seconds of the epoch; `paused`: xl migrate -p, the guest is to
    stay paused; `domid`: the source's domain, at the destination None until it is known; `config`: the guest's
    configuration file, None if none moves."""

    id: str
    role: Role
    state: OwnershipState
    uuid: str
    name: str
    peer: PeerNote
    mode: str
    driver: Process
    xl: Process | None
    domid: int | None
    paused: bool
    disks: tuple[DiskNote, ...]
    began: float
    changed: float
    config: ConfigNote | None = None

    @property
    def alive(self) -> bool:
        """Whether the driver or its xl still runs."""
        return self.driver.alive or (self.xl is not None and self.xl.alive)

    @property
    def file_name(self) -> str:
        """Name of the record's file."""
        return f"{self.id}.{self.role}.json"


@dataclass(frozen=True)
class Unreadable:
    """A file in the records directory that is not a valid record."""

    path: Path
    why: str


def new_id() -> str:
    """Return a new id of a migration: 16 random bytes in hex. The source makes it, both sides use it."""
    return secrets.token_hex(16)


def valid_id(text: str) -> bool:
    """Return whether `text`, which came from the other host or the user, has the form of an id."""
    return _ID.fullmatch(text) is not None


def valid_uuid(text: str) -> bool:
    """Return whether `text`, which came from the other host, has the form of a uuid as xl writes it."""
    return _UUID.fullmatch(text) is not None


def new(role: Role, id: str, *, uuid: str, name: str, peer: PeerNote, mode: str = "live", **more: Any) -> Record:
    """Return a record in its first state, with this process as its driver; `begin` puts it on disk."""
    values: dict[str, Any] = {"xl": None, "domid": None, "paused": False, "disks": (), **more}
    now = time.time()
    return Record(
        id=id, role=role, state=FIRST[role], uuid=uuid, name=name, peer=peer, mode=mode,
        driver=process(os.getpid()), began=now, changed=now, **values,
    )  # fmt: skip


def begin(state_dir: Path, record: Record) -> Record:
    """Put a new record on disk, in place of settled ones of this guest in this role with the same peer: a source
    begins anew only when its own earlier record is settled, so it will not ask for those any more. Raises
    RefusedError if an earlier migration of this guest in this role is not settled, ConfigError if the state
    directory cannot be written, ImageError if the record cannot be."""
    _check_id(record.id)
    writable(state_dir, FOLDER)
    with locked(state_dir) as folder:
        known, _ = read_all(state_dir)
        for other in known:
            if (other.id, other.role) == (record.id, record.role):
                raise OwnershipError(f"there is already a record of migration {record.id} here")
            if (other.uuid, other.role) == (record.uuid, record.role) and other.state not in FINAL:
                raise RefusedError(
                    f"an earlier migration of {record.name} " + ("still runs" if other.alive else "is not settled"),
                    hint="wait for it, or stop it" if other.alive else "run `xenplugin recover`",
                )
        _write(folder, record)
        for other in known:
            same_guest = (other.uuid, other.role) == (record.uuid, record.role)
            if other.state in FINAL and same_guest and other.peer.same(record.peer):
                _remove(folder, other)
        with os_errors("write", str(folder)):
            sync_directory(str(folder.parent))  # the folder may be new
    return record


def advance(state_dir: Path, record: Record, state: OwnershipState, **changes: Any) -> Record:
    """Move the record on to `state`; `changes` are other fields that change with it. Returns the new record, which
    is durable then.

    Raises Overtaken if the record on disk is in another state than `record` (another process settled it),
    OwnershipError if `state` may not follow, ImageError if it cannot be written: then nothing that `state` stands
    for may happen.
    """
    with locked(state_dir) as folder:
        current = _read_again(folder, record)
        if current.state is not record.state:
            raise Overtaken(
                f"the migration of {record.name} has been settled meanwhile: its record says {current.state}",
                hint="`xenplugin status` on both hosts shows what happened",
            )
        check(current.role, current.state, state)
        following = replace(current, state=state, changed=time.time(), **changes)
        _write(folder, following)
    return following


def note(state_dir: Path, record: Record, **changes: Any) -> Record:
    """Change fields of the record other than its state, in any state. Returns the new record, which is durable
    then. Raises Overtaken if the record is gone, ImageError if it cannot be written."""
    return amend(state_dir, record, lambda current: replace(current, **changes))


def amend(state_dir: Path, record: Record, change: Callable[[Record], Record]) -> Record:
    """As `note`; `change` makes the new record out of the one on disk, while no other process can change any record
    of this host. What it raises is passed on, and nothing is changed."""
    with locked(state_dir) as folder:
        following = change(_read_again(folder, record))
        _write(folder, following)
    return following


def forget(state_dir: Path, record: Record) -> None:
    """Remove a final record, and drafts of its old disks' records; does nothing if it is gone. Raises
    OwnershipError if it is not final, ImageError."""
    with locked(state_dir) as folder:
        current = read(state_dir, record.id, record.role)
        if current is None:
            return
        if current.state not in FINAL:
            raise OwnershipError(f"the record of {current.name} says {current.state}, so it is still needed")
        old_disk.remove_drafts(state_dir, record.id)
        _remove(folder, record)


def read(state_dir: Path, id: str, role: Role) -> Record | None:
    """Return the record, None if there is none. Raises OwnershipError if it is there but not valid."""
    _check_id(id)
    path = state_dir / FOLDER / f"{id}.{role}.json"
    found = _read(path)
    if isinstance(found, Unreadable):
        raise OwnershipError(
            f"the record {path} cannot be read: {found.why}",
            hint="look for the guest on both hosts (xl list), then remove that file",
        )
    return found


def read_all(state_dir: Path) -> tuple[list[Record], list[Unreadable]]:
    """Return all records of this host, oldest first, and the files there that are not valid records. Raises
    ImageError if the directory cannot be read."""
    folder = state_dir / FOLDER
    with os_errors("look into", str(folder)):
        names = sorted(folder.glob("*.json")) if folder.is_dir() else []
    found = [_read(name) for name in names]
    records = sorted((one for one in found if isinstance(one, Record)), key=lambda record: record.began)
    return records, [one for one in found if isinstance(one, Unreadable)]


def _check_id(id: str) -> None:
    if not valid_id(id):
        raise OwnershipError(f"{id!r} is not the id of a migration")


@contextmanager
def locked(state_dir: Path) -> Iterator[Path]:
    """Hold the lock under which every record of this host is changed; yields their folder. Raises ImageError."""
    with record_locks.locked(state_dir / FOLDER):
        yield state_dir / FOLDER


def _remove(folder: Path, record: Record) -> None:
    with os_errors("remove", str(folder / record.file_name)):
        remove_reserved(folder / record.file_name)
        sync_directory(str(folder))


def _read_again(folder: Path, record: Record) -> Record:
    current = read(folder.parent, record.id, record.role)
    if current is None:
        raise Overtaken(f"the record of {record.name}'s migration is gone")
    return current


def _write(folder: Path, record: Record) -> None:
    path = folder / record.file_name
    data = json.dumps({"format": FORMAT, **asdict(record)}, indent=1).encode() + b"\n"
    with os_errors("write", str(path)):
        write_reserved(path, data, continued=record.driver.mine)


def _read(path: Path) -> Record | Unreadable | None:
    try:
        record = _parse(json.loads(read_small(path, _LARGEST)))
    except FileNotFoundError:
        return None
    except OSError as error:
        if (short := shortage(error)) is not None:  # it says nothing about the record
            raise short from None
        return Unreadable(path, error.strerror or str(error))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return Unreadable(path, f"{type(error).__name__}: {error}")
    if record.file_name != path.name:
        return Unreadable(path, "the file holds another migration's record")
    return record


def _parse(text: Any) -> Record:
    """Parse a record's JSON. Raises ValueError, KeyError, TypeError."""
    values = dict(text)
    if values.pop("format") != FORMAT:
        raise ValueError("another version of xenplugin wrote it")
    role, state = Role(values.pop("role")), OwnershipState(values.pop("state"))
    if state not in TRANSITIONS[role]:
        raise ValueError(f"the state {state} is not one of a {role}")
    xl, config = values.pop("xl"), values.pop("config", None)
    record = Record(
        role=role,
        state=state,
        peer=typed(PeerNote(**values.pop("peer"))),
        driver=typed(Process(**values.pop("driver"))),
        xl=None if xl is None else typed(Process(**xl)),
        disks=tuple(_disk(disk) for disk in values.pop("disks")),
        config=None if config is None else _config(config),
        **values,
    )
    if not valid_id(record.id) or not valid_uuid(record.uuid):
        raise ValueError("the id or the uuid is invalid")
    return typed(record)


def _disk(values: Any) -> DiskNote:
    committed = None if values["committed"] is None else typed(CommittedImage(**values["committed"]))
    return typed(DiskNote(**{**values, "committed": committed}))


def _config(values: Any) -> ConfigNote:
    links = tuple((str(link), str(text)) for link, text in values["links"])
    return typed(ConfigNote(**{**values, "links": links}))
