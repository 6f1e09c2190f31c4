"""A guest's disks as the far host is asked about them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from xenplugin.config import Config
from xenplugin.errors import ImageError, RefusedError
from xenplugin.image.formats import installed, nbd
from xenplugin.image.formats.inspect import inspect
from xenplugin.image.formats.kinds import RAW, Format
from xenplugin.image.safety.shared_storage import marked
from xenplugin.image.source.content_sample import sample
from xenplugin.image.source.raw import open_source
from xenplugin.migrate.checks.facts import Unusable, WantedDisk, WantedFile
from xenplugin.migrate.staying_disks import EJECT_IT, may_be_shared
from xenplugin.xen.guest import Disk, GuestDisks


class WantedDisks:
    """Gathers them. The markers that show whether both hosts share a disk are there as long as `markers` is open;
    `ejects`: a CD that the far host does not have is ejected. `unusable`: why others cannot move; `remarks`: what
    should be known of those that can; `files`: what else the far host needs."""

    def __init__(self, config: Config, markers: ExitStack, *, ejects: bool) -> None:
        self._config = config
        self._markers = markers
        self._ejects = ejects
        self.unusable: list[Unusable] = []
        self.remarks: list[Unusable] = []
        self.files: list[WantedFile] = []

    def of(self, disks: GuestDisks) -> tuple[WantedDisk, ...]:
        """Return what the far host is asked. A disk that cannot be read is added to `unusable`."""
        found = []
        for disk in disks.images + disks.cds:
            try:
                found.append(self._cd(disk) if disk in disks.cds else self._image(disk))
            except (RefusedError, ImageError) as error:
                self.unusable.append(unusable(error))
        return tuple(found)

    def _image(self, disk: Disk) -> WantedDisk:
        declared = self._config.shares(disk.path)
        with open_source(disk.path) as source:
            size, format, files = source.size, Format(), 1
            if disk.format != RAW:
                installed.refuse_missing()
                info = inspect(disk.path, disk.format, folders=None)  # as its QEMU does
                size, format, files = info.size, info.format, len(info.files)
                if declared or may_be_shared(disk.path):
                    self._need(disk, info.files[1:])
            elif disk.backend == "qdisk":
                self._remark_compared(disk)
            taken = source.taken() if files == 1 else None  # of backing files only a part may count
            if taken is not None:
                taken = min(taken, size)
            names = self._markers.enter_context(
                marked(disk.path, live=not declared, local=False, notice=lambda text: None)
            )
        return WantedDisk(disk.device, disk.path, size, taken, format.as_json(), names, disk.writable, declared)

    def _cd(self, disk: Disk) -> WantedDisk:
        try:
            with open_source(disk.path) as source:
                size, content, taken = source.size, sample(source), source.taken()
        except (RefusedError, ImageError) as error:
            if not self._ejects:
                raise RefusedError(f"the CD in {disk.device} cannot move: {error.message}", hint=EJECT_IT) from None
            size, content, taken = 0, "", None
        names = {"own": [], "below": [], "device": False, "markers": []}  # what is there is never replaced
        return WantedDisk(
            disk.device, disk.path, size, taken, Format().as_json(), names, False, False, True, content
        )

    def _remark_compared(self, disk: Disk) -> None:
        """Say so if the writes to a raw disk that QEMU serves cannot be asked of it."""
        try:
            nbd.library()
        except RefusedError as error:
            text = f"{disk.device}: QEMU, which serves it, cannot be asked what the guest writes without libnbd:"
            text += " in mode live the whole disk is compared while the guest is suspended"
            self.remarks.append(Unusable(text, f"{error.hint} here"))

    def _need(self, disk: Disk, backing: Sequence[str]) -> None:
        """Add the backing files of a disk that may stay where it is."""
        self.files += [
            WantedFile(path, f"the backing file of {disk.device}", at_start=False)
            for path in backing
            if path.startswith("/")
        ]


def unusable(error: RefusedError | ImageError) -> Unusable:
    """Return the error as a check has it."""
    return Unusable(error.message, error.hint or "")
