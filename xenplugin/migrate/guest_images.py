"""Opens the images of a guest's disks, and tracks what the guest writes: by the kernel, or by the guest's own
QEMU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from xenplugin.errors import RefusedError
from xenplugin.image.formats.inspect import inspect
from xenplugin.image.formats.kinds import RAW
from xenplugin.image.source.changes import AtRest, Changes, Unwatched
from xenplugin.image.source.formatted import ExportedSource
from xenplugin.image.source.raw import Source, open_source
from xenplugin.xen.dirty_tracking import track
from xenplugin.xen.guest import Disk
from xenplugin.xen.qemu_disk import SOCKET, GuestExport, GuestQemu, QemuWrites
from xenplugin.xen.qmp import QmpError


class GuestImages:
    """The images of the guest with the domain id `domid`; `live`: it runs meanwhile. `notify` gets a line for what
    the administrator should know. `close` ends all."""

    def __init__(self, domid: int, live: bool, notify: Callable[[str], None]) -> None:
        self._socket = SOCKET.format(domid=domid)
        self._live = live
        self._notify = notify
        self._qemu: GuestQemu | None = None
        self._exports: dict[Disk, GuestExport] = {}
        self._emulated: list[Disk] = []
        self._opened = ExitStack()

    def open(self, disk: Disk) -> tuple[Source, Changes]:
        """Open the image of `disk`, and track its writes from before it is read. Raises RefusedError,
        ImageError."""
        if disk.is_cd:
            source = self._opened.enter_context(open_source(disk.path))
            return source, AtRest(source)
        if disk.backend == "qdisk" and (self._live or disk.format != RAW):
            try:
                return self._ask_qemu(disk)
            except (QmpError, OSError, RefusedError) as error:
                if disk.format != RAW and isinstance(error, RefusedError):
                    raise
                if disk.format != RAW:
                    raise RefusedError(
                        f"{disk.path} is read by the guest's QEMU, which cannot be asked for it: {error}",
                        hint="end xentop and other clients of QEMU, then start again",
                    ) from None
                self._notify(
                    f"{disk.device}: writes cannot be tracked, so the whole disk is compared instead: {error}"
                )
                return self._opened.enter_context(open_source(disk.path)), Unwatched()
        changes: Changes = Unwatched()
        if self._live:
            changes = track(disk, self._notify)
            self._opened.callback(changes.close)
        return self._opened.enter_context(open_source(disk.path)), changes

    def prepare_stop(self) -> None:
        """The guest may be stopped soon: read nothing by its QEMU until `finish_stop`."""
        for export in self._exports.values():
            export.pause()

    def finish_stop(self) -> None:
        """The guest is stopped: go on reading, what its QEMU serves as well. Raises RefusedError if it does not
        serve what the guest has used."""
        for disk, export in self._exports.items():
            try:
                export.resume()
                assert self._qemu is not None
                if disk not in self._emulated or self._qemu.emulated(disk):
                    continue
                why = "the guest's own driver has taken the place of the emulated disk"
            except (QmpError, OSError) as error:
                why = str(error)
            raise RefusedError(f"{disk.device} cannot be read to its end: {why}", hint="move the guest again")

    def _ask_qemu(self, disk: Disk) -> tuple[Source, Changes]:
        if self._qemu is None:
            self._qemu = GuestQemu(self._socket)
            self._opened.callback(self._qemu.close)
        qemu = self._qemu
        node = qemu.node(disk)
        changes: Changes = QemuWrites(qemu, node) if self._live else Unwatched()
        self._exports[disk] = export = qemu.export(disk.device, node.name)
        self._opened.callback(export.close)
        if node.emulated:
            self._emulated.append(disk)
        file = self._opened.enter_context(open_source(disk.path))
        source = self._opened.enter_context(ExportedSource(file, export, node.format))
        if disk.format != RAW:
            source.backing = inspect(disk.path, disk.format, folders=None).backing  # those that its QEMU has open
        return source, changes

    def close(self) -> None:
        """Close all images and stop all tracking; may be called more than once. No other thread may be reading
        (`give_up`)."""
        self._opened.close()

    def give_up(self) -> None:
        """Let reading that waits fail."""
        for export in self._exports.values():
            export.give_up()
