"""The old disks of a guest that leaves, and of one that has come back: when they are put aside, and what becomes of
them.

They are put aside after every disk is durable at the destination, while the far xl starts the guest's devices, and
before the record says `handing` (migrate/ownership/states.py). So whatever may let the guest run elsewhere comes
later. If the guest stays, recovery gives its disks their names back: it finds the records of its migration."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from xenplugin.config import REMOVE
from xenplugin.errors import ImageError, OwnershipError, XenpluginError, unexpected
from xenplugin.image.old import moving, old_disk
from xenplugin.image.old.old_disk import OldDisk
from xenplugin.image.source.raw import open_source
from xenplugin.image.target.content import info_of
from xenplugin.migrate.leaving_guest import LeavingGuest
from xenplugin.migrate.ownership.records import DiskNote, Record
from xenplugin.migrate.ownership.states import OwnershipState, Role
from xenplugin.xen.guest import Disk

Notify = Callable[[str], None]
#: Seconds that a file system gets for the renames when the migration is given up.
_PATIENCE = 60.0
#: Seconds between two looks at whether they are done; the end itself is noticed at once.
_TICK = 0.1


class PuttingAside:
    """Puts a guest's disks aside in a thread of its own. `notify` gets what the administrator should know, and
    `on_failure` the error that ended it."""

    def __init__(self, state_dir: Path, notify: Notify, on_failure: Callable[[XenpluginError], None]) -> None:
        self._state_dir = state_dir
        self._disks: list[OldDisk] = []
        self._notify = notify
        self._on_failure = on_failure
        self._given_up = False
        self._failure: XenpluginError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def prepare(
        self, leaving: LeavingGuest, disks: Sequence[Disk], sizes: Sequence[int], host: str, migration: str
    ) -> None:
        """Look at the `disks`, of `sizes` bytes, that the guest will leave behind when it goes to `host`. Those
        that it cannot write are left alone: other guests may have them as well, and they do not become stale.
        Raises ImageError."""
        unwanted = leaving.config.left_disks == REMOVE
        about = {"guest": leaving.guest.name, "uuid": leaving.uuid, "host": host, "migration": migration}
        self._disks = [
            moving.examine(disk.path, size, **about, unwanted=unwanted)
            for disk, size in zip(disks, sizes, strict=True)
            if disk.writable
        ]

    def start(self) -> None:
        """Begin."""
        if self._disks:
            self._thread.start()

    def finish(self, check: Callable[[], None]) -> None:
        """Wait until all lie aside, durably; `check` is called often, to raise what ends the migration. Raises what
        failed."""
        while self._thread.is_alive():
            check()
            self._thread.join(_TICK)
        if self._failure is not None:
            raise self._failure

    def give_up(self) -> None:
        """Put no more aside, and wait for what is being done. Raises OwnershipError if that does not end."""
        self._given_up = True
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            raise OwnershipError(
                "the file system of the guest's disks does not answer",
                hint="when it answers again, run `xenplugin recover`",
            )

    def _run(self) -> None:
        try:
            for old in self._disks:
                if self._given_up:
                    return
                moving.put_aside(self._state_dir, old, self._notify)
        except Exception as exc:  # what ends this thread must end the migration, not hang it
            self._failure = unexpected(exc)
        if self._failure is not None:
            self._on_failure(self._failure)


def lie_aside(state_dir: Path, one: Record) -> bool:
    """Return whether there are records of disks that this migration's guest left here. Raises ImageError."""
    return one.role is Role.SOURCE and bool(old_disk.of_migration(state_dir, one.id))


def give_back(state_dir: Path, one: Record, notify: Notify) -> None:
    """The guest has stayed: give its disks their names back. All of them are tried. Raises OwnershipError if one
    does not get its name."""
    failure: XenpluginError | None = None
    for old in old_disk.of_migration(state_dir, one.id):
        try:
            moving.give_back(state_dir, old)
            if old.aside != old.path:
                notify(f"{old.path} has its name again")
        except XenpluginError as exc:
            failure = failure or exc
    if failure is not None:
        raise OwnershipError(failure.message, hint=failure.hint or "then run `xenplugin recover`") from None


def put_to_rest(state_dir: Path, one: Record, notify: Notify) -> None:
    """The guest runs elsewhere, and its domain here is destroyed: deactivate its volumes."""
    for old in old_disk.of_migration(state_dir, one.id):
        try:
            moving.settle_aside(state_dir, old)
        except XenpluginError as exc:
            notify(f"{old.aside} stays active: {exc}")


def remove_unwanted(state_dir: Path, one: Record, notify: Notify) -> None:
    """The guest runs elsewhere, and both sides have settled that: remove the disks that `left_disks` gives up."""
    for old in old_disk.of_migration(state_dir, one.id):
        if not old.unwanted or moving.has_name(old):
            continue
        try:
            moving.remove_old(state_dir, old)
            notify(f"removed {old.aside}: {old.guest} has it on {old.host}")
        except XenpluginError as exc:
            notify(f"{old.aside} is still there: {exc}")


def end_return(state_dir: Path, one: Record, notify: Notify) -> None:
    """The migration `one`, which brings a guest back to this host, is over here. If the guest runs here, its old
    disks are superseded by those that have come, and removed; otherwise they stay aside."""
    with suppress(ImageError):  # a record that cannot be removed is shown by `xenplugin status`
        for old in old_disk.read_all(state_dir)[0]:
            if old.returning != one.id or one.role is not Role.DESTINATION or old.storage == old_disk.CONFIG:
                continue
            try:
                if one.state is not OwnershipState.RUNNING:
                    moving.take_again(state_dir, old)
                elif any(old.had(disk.path) for disk in one.disks if not disk.stays):
                    moving.remove_old(state_dir, old)
            except XenpluginError as exc:
                notify(f"{old.aside} could not be put away: {exc}")


def leave_copies(state_dir: Path, one: Record, notify: Notify) -> None:
    """The guest that was arriving stays where it was, and has no domain here: put the copies of its disks that are
    complete aside, before this is recorded. They are out of date as soon as it runs there. Raises ImageError."""
    about = {"guest": one.name, "uuid": one.uuid, "host": one.peer.host, "migration": one.id}
    for disk in one.disks:
        if not _is_copy(disk):
            continue
        old = moving.examine(disk.path, disk.size, **about, unwanted=False)
        if old.storage == old_disk.FILE:
            moving.put_aside(state_dir, old, notify)
        elif not any(earlier.returning == one.id for earlier in old_disk.those_of(state_dir, disk.path)):
            old_disk.write(state_dir, old)  # under its name, where the next try looks for it


def _is_copy(disk: DiskNote) -> bool:
    """Return whether the disk that has arrived is there. Between its rename and the note `committed` it is known by
    what is not there any more: the empty file that this migration made."""
    if disk.stays:
        return False
    if disk.committed is not None:
        return disk.committed.lies_at(disk.path)  # the guest may have run on it, on a host that died then
    with suppress(OSError):
        now = os.stat(disk.path)
        if disk.placeholder in (None, now.st_ino):
            return False
        return now.st_size == disk.size or _size_as_seen(disk.path) == disk.size
    return False


def _size_as_seen(path: str) -> int | None:
    """Return the size that a guest sees of an image in another format than raw (bytes); None if it is none."""
    with suppress(XenpluginError), open_source(path) as source:
        info = info_of(source)
        return None if info is None else info.size
    return None
