"""Which disks of this host belong to a guest that is arriving: nothing else of ours writes to them, or reads them.

The claim is the destination's record of the migration, from its note `disks` (before any data is sent) until the
record is final: then a domain has the disks attached, and xenstore shows it, or the guest stays where it was. A
claim does not end with its processes: a migration that was killed may have given the guest its permission to run,
and only `xenplugin recover` can tell. A disk is claimed whatever it is called (image.safety.local_identity): by its
path as it is now, and by the file that was committed, wherever it has been moved. A record that cannot be read may
claim any disk, so it stops everything that would write.

Two that write to one disk exclude each other by the lock on the partial file, or the kernel's claim on a device. A
migration holds them for all its disks before it notes these, and each until the disk is committed. So for a copy
and a migration there are these cases (and for two migrations the same):

- The copy has opened the disk first: the migration cannot open it, and notes nothing.
- The migration has opened it first: the copy cannot.
- The copy looked for claims before the note, and opens the disk after the commit: it looks again just before its
  own commit, and finds the claim. No new one can come between that look and the rename: the copy has the lock.
- The copy has the file by a name with another partial (a hard link): its rename leaves the migration's name alone.
- A file that is mounted elsewhere is refused as a target under its other name (image.safety.in_use).
- Anything else changes the disk: it is compared before the guest may run (`compare`).

What is on disk when a disk is committed, in this order: the complete partial; the image under its name; `committed`
in the record; only then the receipt leaves for the source. After a crash between two of these the source has no
receipt, so the gate stays shut; and without `committed` the far xl never gets its permission (message 6).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from xenplugin.errors import RefusedError
from xenplugin.image.safety.committed import CommittedImage
from xenplugin.image.safety.local_identity import LocalIdentity, overlapping, own
from xenplugin.migrate.ownership import records
from xenplugin.migrate.ownership.records import CD, DiskNote, Record
from xenplugin.migrate.ownership.states import FINAL, OwnershipState, Role
from xenplugin.xen.attached import attached


class Claims:
    """The claims on this host's disks, from the records in `state_dir`, for the migration with the id `migration`,
    whose own do not count ("": for a copy)."""

    def __init__(self, state_dir: Path, migration: str = "") -> None:
        self._state_dir = state_dir
        self._migration = migration

    def attached(self, path: str) -> str | None:
        """Return the guest that has the disk `path`, as xen.attached does, if there is one. Raises RefusedError
        if another migration claims it, or if the own one is over or unknown here."""
        if self._migration:
            self._receiving(path)
        self.refuse([path])
        return attached(path)

    def refuse(self, paths: Iterable[str], *, reading: bool = False) -> None:
        """Raise RefusedError if another migration claims one of the disks `paths`, or may claim it. `reading`: they
        are only read, which a guest that arrives and has the same CD image allows."""
        known, unreadable = records.read_all(self._state_dir)
        for bad in unreadable:
            if bad.path.name.endswith(f".{Role.DESTINATION}.json"):
                raise RefusedError(
                    f"the record {bad.path} cannot be read ({bad.why}), so it is not known which disks are taken",
                    hint="look for the guest on both hosts (xl list), then remove that file",
                )
        others = [one for one in known if self._counts(one)]
        for path in paths if others else ():
            wanted = overlapping(path)
            for one in others:
                if any(wanted & _identities(disk) for disk in one.disks if not (reading and disk.stays == CD)):
                    raise _refused(path, one)

    def placeholder(self, path: str, size: int, inode: int) -> None:
        """Write into the own migration's record that an empty file with this inode is about to get the name `path`,
        for a disk of `size` bytes; durable on return. Raises as `committed` does."""

        def change(current: Record) -> Record:
            _check_receiving(current, path)
            others = (disk for disk in current.disks if disk.path != path)
            return replace(current, disks=(*others, DiskNote(path, size, inode)))

        records.amend(self._state_dir, self._receiving(path), change)

    def committed(self, path: str, image: CommittedImage) -> None:
        """Write into the own migration's record that its disk `path` is there, as `image`; durable on return.
        Raises RefusedError if the migration is over, or has no such disk; ImageError if it cannot be written."""

        def change(current: Record) -> Record:
            _check_receiving(current, path)
            if path not in [disk.path for disk in current.disks]:
                raise RefusedError(f"the guest's migration has not announced the disk {path}")
            return replace(
                current,
                disks=tuple(
                    replace(disk, committed=image) if disk.path == path else disk for disk in current.disks
                ),
            )

        records.amend(self._state_dir, self._receiving(path), change)

    def _receiving(self, path: str) -> Record:
        one = records.read(self._state_dir, self._migration, Role.DESTINATION)
        if one is None:
            raise _over(path)
        _check_receiving(one, path)
        return one

    def _counts(self, one: Record) -> bool:
        return one.role is Role.DESTINATION and one.state not in FINAL and one.id != self._migration


def compare(one: Record) -> None:
    """Raise RefusedError unless each disk of the record was committed, and is what it was then."""
    for disk in one.disks:
        why = "it is not complete" if disk.committed is None else disk.committed.difference(disk.path)
        if why is not None:
            raise RefusedError(
                f"{one.name} may not run here on its disk {disk.path}: {why}",
                hint=f"find out what has changed {disk.path}, then move the guest again",
            )


def _identities(disk: DiskNote) -> set[LocalIdentity]:
    return own(disk.path) | ({disk.committed.identity} if disk.committed is not None else set())


def _refused(path: str, one: Record) -> RefusedError:
    disk, host = f"{path} is a disk of {one.name}", one.peer.host
    if one.alive:
        return RefusedError(
            f"{disk}, which is moving here from {host} (migration {one.id})",
            hint="wait until it runs here, or stop that migration: `xenplugin status` shows it",
        )
    return RefusedError(
        f"{disk}, whose migration from {host} was interrupted (migration {one.id})", hint="run `xenplugin recover`"
    )


def _check_receiving(one: Record, path: str) -> None:
    if one.state is not OwnershipState.RECEIVING:
        raise _over(path)


def _over(path: str) -> RefusedError:
    return RefusedError(
        f"the migration that the disk {path} belongs to is over, or not known on this host",
        hint="`xenplugin status` on both hosts shows what became of the guest",
    )
