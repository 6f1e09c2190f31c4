"""Which disks of a guest that leaves move with it, and which stay where they are. The far host is asked, in notes,
before anything is sent: a disk that both hosts share stays, and so does what a block script attaches; a CD image
that the far host has is left here, and another one is copied or ejected.

`ejected` changes the configuration that the far xl gets. The guest here keeps its CD, so it has lost nothing if the
move fails. (libxl itself writes such a drive in this way: libxl_cdrom_insert in tools/libs/light/libxl_disk.c.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from xenplugin.errors import ImageError, RefusedError
from xenplugin.image.index.unchanged import image_digest
from xenplugin.image.safety import cluster_files
from xenplugin.image.safety.shared_storage import marked
from xenplugin.image.source.raw import open_source
from xenplugin.migrate.arriving_disks import another_cd
from xenplugin.migrate.leaving_guest import LeavingGuest
from xenplugin.migrate.ownership.claims import Claims
from xenplugin.migrate.ownership.recorded_notes import RecordedNotes
from xenplugin.migrate.ownership.records import CD, SHARED
from xenplugin.migrate.xl.xl_protocol import GuestConfig, rewrite
from xenplugin.results import StayingDisk, WhyStaying
from xenplugin.xen.guest import Disk

Notify = Callable[[str], None]
#: What to do about a CD that keeps its guest from moving.
EJECT_IT = 'take it out (xl cd-eject), or set cds = "eject" in xenplugin.conf here'


@dataclass(frozen=True)
class DisksToMove:
    """`moving`: the disks whose content is sent; `staying`: the others, and why; `there`: those of them that the
    far host has under a path; `ejected`: the names of CD drives that arrive empty."""

    moving: tuple[Disk, ...]
    staying: tuple[StayingDisk, ...] = ()
    there: tuple[Disk, ...] = ()
    ejected: tuple[str, ...] = ()

    @property
    def shared(self) -> list[str]:
        """The paths of the disks that both hosts share."""
        return [each.path for each in self.staying if each.why == "shared"]

    @property
    def has_cds(self) -> bool:
        """Whether CD images are among those that move: these are sent before the guest is suspended in any mode."""
        return any(disk.is_cd for disk in self.moving)

    def refuse_claimed(self, claims: Claims) -> None:
        """Raise RefusedError if a guest that arrives here has one of the disks that move."""
        for disk in self.moving:
            claims.refuse([disk.path], reading=disk.is_cd)

    def announced(self, sizes: Sequence[int], made: Sequence[bool]) -> list[dict[str, Any]]:
        """Return the note `disks`: those that move, with `sizes` bytes, for which the far side has `made` an empty
        file, and those that are there."""
        rows = zip(self.moving, sizes, made, strict=True)
        moving = [{"path": disk.path, "size": size, "made": new, "stays": False} for disk, size, new in rows]
        return [*moving, *({"path": disk.path, "size": 0, "made": False, "stays": True} for disk in self.there)]

    def configured(self, config: GuestConfig, held: bytes) -> bytes:
        """Return the bytes `held`, which begin with the guest's configuration, as the far xl is to get them."""
        if not self.ejected:
            return held
        return rewrite(config.raw, without_cds(config.fields, self.ejected)) + held[config.end :]


def decide(leaving: LeavingGuest, host: str, notes: RecordedNotes, notify: Notify) -> DisksToMove:
    """Ask `host` about the disks of the guest, which it knows by now. Raises RefusedError if one can neither move
    nor stay, and what else ends the migration."""
    moving: list[Disk] = []
    there: list[Disk] = []
    staying: list[StayingDisk] = []
    disks = leaving.disks
    for disk in disks.images:
        if _is_shared(leaving, disk, notes):
            there.append(disk)
            staying.append(StayingDisk(disk.device, disk.path, "shared"))
        else:
            moving.append(disk)
    staying += [StayingDisk(disk.device, disk.path, "script") for disk in disks.scripts]
    fates: dict[str, WhyStaying | None] = {}  # of one image that is in two drives
    for disk in disks.cds:
        if disk.path not in fates:
            fate = fates[disk.path] = _why_cd_stays(leaving, disk, notes)
            if fate in (None, "left"):
                (there if fate else moving).append(disk)
        if (why := fates[disk.path]) is None:
            notify(f"{disk.device}: the CD image {disk.path} moves along")
        else:
            staying.append(StayingDisk(disk.device, disk.path, why))
    for each in staying:
        notify(each.text(host))
    ejected = tuple(each.device for each in staying if each.why == "ejected")
    return DisksToMove(tuple(moving), tuple(staying), tuple(there), ejected)


def without_cds(fields: Mapping[str, Any], ejected: Iterable[str]) -> dict[str, Any]:
    """Return the configuration `fields` (libxl's, as JSON) in which the CD drives `ejected` are empty."""
    empty = {"pdev_path": "", "format": "empty"}
    disks = [{**disk, **empty} if disk.get("vdev") in ejected else disk for disk in fields.get("disks", ())]
    return {**fields, "disks": disks} if disks else dict(fields)


def may_be_shared(path: str) -> bool:
    """Return whether the disk `path` is on a file system that other hosts may mount as well."""
    with suppress(OSError):
        return cluster_files.family(path) != ""
    return False


def device_cd(path: str) -> RefusedError:
    """Return the error that the CD in the drive `path` cannot be copied."""
    return RefusedError(f"the CD in {path} is not in a file, so it cannot be copied", hint=EJECT_IT)


def _is_shared(leaving: LeavingGuest, disk: Disk, notes: RecordedNotes) -> bool:
    declared = leaving.config.shares(disk.path)
    if not declared and not may_be_shared(disk.path):
        return False
    with open_source(disk.path) as source:
        size = source.size
    with marked(disk.path, live=not declared, local=False, notice=lambda text: None) as description:
        asked = {"path": disk.path, "size": size, "writable": disk.writable, "declared": declared}
        return notes.send("stay", {"kind": SHARED, **asked, "disk": description}).get("stays") is True


def _why_cd_stays(leaving: LeavingGuest, disk: Disk, notes: RecordedNotes) -> WhyStaying | None:
    """Return "left" if the far host has the CD image, "ejected" if it has not; None if it is to be copied. Raises
    RefusedError if it can be neither."""
    try:
        source = open_source(disk.path)
    except (ImageError, RefusedError) as error:
        if leaving.ejects:
            return "ejected"
        raise RefusedError(
            f"{leaving.guest.name} cannot move with the CD in {disk.device}: {error.message}", hint=EJECT_IT
        ) from None
    with source:
        asked = {"kind": CD, "path": disk.path, "size": source.size}
        found = notes.send("stay", asked)
        if found.get("digest"):  # they have the same size
            notes.post("stay", {**asked, "compare": True})
            digest = image_digest(source).hex()
            if notes.wait_noted().get("digest") == digest:
                return "left"
    if leaving.ejects:
        return "ejected"
    if found.get("there"):
        another = another_cd(disk.path)
        raise RefusedError(another.message, hint=another.hint, remote=True)
    if source.device:
        raise device_cd(disk.path)
    return None
