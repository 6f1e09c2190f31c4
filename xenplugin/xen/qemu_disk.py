"""A running guest's disk that QEMU serves: its content and its writes, asked of the guest's own QEMU.

libxl starts a QEMU for each guest with such a disk. It takes commands on a socket that only `xentop` uses otherwise
(qmp-libxenstat-DOMID). There the disk's node is exported by NBD, read only, so that it is read as the guest sees
it, whatever its format. What the guest writes is marked in a dirty bitmap when the write is done; to drain it,
another is added, then it is copied, removed, and the copy is read by NBD.

Everything that is made there has a name that begins with PREFIX, and is taken away at the end. What a run that was
killed has left is taken away by the next one.

A disk that the guest's own driver uses is served by a thread of its own there, and the NBD server of QEMU 7.2, as
Debian 12 has it, is not made for that: an assertion that fails ends QEMU, and with it the guest. So:

- QEMU never sees that a client leaves (nbd_blockdev_client_closed: `qemu_in_main_thread()`). An export is removed,
  which ends its connections in the main thread, before this side closes one. And QEMU keeps a duplicate of this
  side's end, so that it sees no end of it if this process is killed.
- Nothing drains a node while a client is connected to it (nbd_co_receive_request: `recv_coroutine`). A transaction,
  which would exchange bitmaps at one instant, drains all nodes, and so does libxl when it stops an HVM guest. So
  bitmaps are exchanged one after the other, and read from a node of the main thread; and no client is connected
  where the guest may be stopped.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from xenplugin.geometry import CHUNK
from xenplugin.image.formats.kinds import Format, of_info
from xenplugin.image.formats.nbd import ALLOCATION, BITMAP, NbdExport
from xenplugin.xen.guest import Disk
from xenplugin.xen.qmp import Qmp, QmpError

PREFIX = "xenplugin-"
SOCKET = "/var/run/xen/qmp-libxenstat-{domid}"
#: Seconds for QEMU to answer. A transaction waits for requests that are under way.
_PATIENCE = 20.0
_DIRTY = 1


@dataclass(frozen=True)
class NodeInfo:
    """The node of a guest's disk: its name in QEMU, how the image is stored, its size as the guest sees it
    (bytes). `emulated`: an HVM guest has it as a disk that QEMU emulates: its boot loader still runs, or it has no
    drivers for Xen. A guest's driver takes the emulated disk away, and uses another node of the same image."""

    name: str
    format: Format
    size: int
    emulated: bool = False

    @property
    def plain_name(self) -> str:
        """Its name as a part of other names: QEMU's own names begin with #, which they may not."""
        return self.name.lstrip("#")


class GuestQemu:
    """The QEMU of a guest, at the QMP socket `path`, with an NBD server of ours. Raises QmpError, OSError."""

    def __init__(self, path: str, patience: float = _PATIENCE) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="xenplugin-")
        self.socket = os.path.join(self._folder.name, "nbd")
        self._serves = False
        self._lock = threading.Lock()
        self._qmp = Qmp(path, patience)
        try:
            self._clean()
            self.execute("nbd-server-start", addr={"type": "unix", "data": {"path": self.socket}})
            self._serves = True
        except BaseException:
            self.close()
            raise

    def execute(self, command: str, **arguments: Any) -> Any:
        """Have QEMU run `command` (Qmp.execute), from any thread."""
        with self._lock:
            return self._qmp.execute(command, **arguments)

    def node(self, disk: Disk) -> NodeInfo:
        """Return the node by which the guest uses `disk`. Raises QmpError if there is none, or if it is another
        image."""
        emulated = self.emulated(disk)
        wanted = emulated or _own_node(disk)
        for found in self.execute("query-named-block-nodes", flat=False):
            if found.get("node-name") != wanted or found.get("drv") != disk.format:
                continue
            image = found["image"]
            if not _is_of(found, disk):
                raise QmpError(f"its QEMU has {found.get('file')} as {disk.device}")
            specific = image.get("format-specific", {}).get("data", {})
            format = Format()
            if disk.format != "raw":
                format = of_info(disk.format, image.get("cluster-size"), specific, fixed=False)
            return NodeInfo(wanted, format, int(image["virtual-size"]), bool(emulated))
        raise QmpError(f"its QEMU has no node {wanted}")

    def emulated(self, disk: Disk) -> str:
        """Return the name of the node of `disk` as an emulated one that the guest may write to; "" if there is none
        (any more)."""
        for drive in self.execute("query-block"):
            found = drive.get("inserted") or {}
            if _is_of(found, disk) and found.get("node-name") != _own_node(disk) and not found.get("ro"):
                return str(found["node-name"])
        return ""

    def export(self, name: str, node: str, bitmaps: tuple[str, ...] = ()) -> GuestExport:
        """Export a node read only, with these bitmaps, and connect to it."""
        return GuestExport(self, name, node, bitmaps)

    def connect(self, name: str) -> socket.socket:
        """Return a connection to the NBD server, for the export `name`, of which QEMU keeps a duplicate."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self.socket)
            with self._lock:
                self._qmp.lend(f"{PREFIX}{name}", connection.fileno())
        except BaseException:
            connection.close()  # before anything was said, it ends in QEMU's main thread
            raise
        return connection

    def drop(self, name: str) -> None:
        """Remove an export, and end the connections to it. Returns when it is gone: until then its bitmaps are in
        use."""
        id = f"{PREFIX}{name}"
        there = id in self._exports()
        with self._lock:  # until it is gone: another command would take the event
            self._qmp.forget_events()
            if there:
                self._qmp.execute("block-export-del", id=id, mode="hard")
            with contextlib.suppress(QmpError):  # it has none of that name
                self._qmp.execute("closefd", fdname=id)
            if there:
                self._qmp.await_event("BLOCK_EXPORT_DELETED", id=id)

    def close(self) -> None:
        """Take everything away, as far as QEMU is still there."""
        with contextlib.suppress(QmpError):
            self._clean()
            if self._serves:
                self.execute("nbd-server-stop")
        self._qmp.close()
        self._folder.cleanup()

    def _clean(self) -> None:
        """Take away what this run or one that was killed has left."""
        exports = self._exports()
        for id in exports:
            if id.startswith(PREFIX):
                self.drop(id.removeprefix(PREFIX))
        if exports and all(id.startswith(PREFIX) for id in exports) and not self._serves:
            self.execute("nbd-server-stop")  # nobody else uses it
        for node in self.execute("query-named-block-nodes", flat=True):
            for bitmap in node.get("dirty-bitmaps", []):
                name = str(bitmap.get("name", ""))
                if name.startswith(PREFIX):
                    self.execute("block-dirty-bitmap-remove", node=node["node-name"], name=name)
            if str(node["node-name"]).startswith(PREFIX):
                self.execute("blockdev-del", node_name=node["node-name"])

    def _exports(self) -> list[str]:
        found = self.execute("query-block-exports")
        return [str(export.get("id")) for export in found if export.get("type") == "nbd"]


def _own_node(disk: Disk) -> str:
    """Return the name of the node that the guest's own driver uses."""
    return f"{disk.device}-{disk.format}"


def _is_of(found: dict[str, Any], disk: Disk) -> bool:
    """Return whether a node or drive that QEMU describes as `found` is of the image of `disk`."""
    file = str(found.get("file", ""))
    return disk.path in (file, found.get("image", {}).get("filename")) or f'"{disk.path}"' in file


class GuestExport(NbdExport):
    """The export `name` of a `node` of a guest's QEMU, with `bitmaps`. `close` removes it."""

    def __init__(self, qemu: GuestQemu, name: str, node: str, bitmaps: tuple[str, ...]) -> None:
        self._qemu = qemu
        self._name = name
        self._node = node
        self._bitmaps = bitmaps
        self._contexts = tuple(f"{BITMAP}{bitmap}" for bitmap in bitmaps) or (ALLOCATION,)
        self._use = threading.Lock()  # held while a request is under way, and while it is paused
        self._paused = False
        with self._added():
            super().__init__(qemu.connect(name), name, self._contexts)

    def pause(self) -> None:
        """Remove the export; requests wait until `resume`."""
        if not self._paused:
            self._use.acquire()
            self._paused = True
            self.close()

    def resume(self) -> None:
        """Export the node again, as it is now. Raises QmpError, OSError; then requests fail from now on."""
        if self._paused:
            try:
                with self._added():
                    self._connect(self._qemu.connect(self._name), self._name, self._contexts)
            finally:
                self.give_up()

    def give_up(self) -> None:
        """Let requests that wait for `resume` fail."""
        if self._paused:
            self._paused = False
            self._use.release()

    @contextlib.contextmanager
    def _added(self) -> Iterator[None]:
        self._qemu.execute(
            "block-export-add", type="nbd", id=f"{PREFIX}{self._name}", name=self._name, node_name=self._node,
            writable=False, bitmaps=list(self._bitmaps),
        )  # fmt: skip
        try:
            yield
        except BaseException:
            self._qemu.drop(self._name)
            raise

    def _transfer(self, call: Any, view: memoryview, offset: int) -> None:
        with self._in_use():
            super()._transfer(call, view, offset)

    def _status(self, offset: int, length: int, context: str) -> list[int]:
        with self._in_use():
            return super()._status(offset, length, context)

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        with self._use:
            if not self._handle:
                raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
            yield

    def _disconnect(self) -> None:
        with contextlib.suppress(QmpError):  # then QEMU has ended, or goes on without noticing
            self._qemu.drop(self._name)


class QemuWrites:
    """The writes to a node of `qemu` from now on, as image.source.changes.Changes. Raises QmpError."""

    def __init__(self, qemu: GuestQemu, node: NodeInfo) -> None:
        self._qemu = qemu
        self._node = node
        self._count = 0
        self._sound = True
        # An empty image of the same size, to which marks are copied: it belongs to the main thread.
        self._map = f"{PREFIX}{node.plain_name}"
        qemu.execute("blockdev-add", driver="null-co", node_name=self._map, size=node.size)
        qemu.execute("block-dirty-bitmap-add", **self._bitmap(node.name))

    def drain(self) -> set[int] | None:
        """Return the chunks written since the last call; None: unknown, compare all."""
        if not self._sound:
            return None
        try:
            # The new one comes before the old one is copied: a write between the two is in both.
            old = self._bitmap(self._node.name)
            self._count += 1
            self._qemu.execute("block-dirty-bitmap-add", **self._bitmap(self._node.name))
            copy = {**old, "node": self._map}
            self._qemu.execute("block-dirty-bitmap-add", **copy, disabled=True)
            self._qemu.execute(
                "block-dirty-bitmap-merge", node=self._map, target=old["name"], bitmaps=[_named(old)]
            )
            self._qemu.execute("block-dirty-bitmap-remove", **_named(old))
            found = set(self._read(old["name"]))
            self._qemu.execute("block-dirty-bitmap-remove", **_named(copy))
            return found
        except (QmpError, OSError):
            self._sound = False
            return None

    def close(self) -> None:
        """Stop tracking. (What is in QEMU goes with its GuestQemu.)"""

    def _read(self, bitmap: str) -> Iterator[int]:
        export = self._qemu.export(f"{self._node.plain_name}-map", self._map, (bitmap,))
        try:
            for offset, length, flags in export.extents(0, self._node.size, f"{BITMAP}{bitmap}"):
                if flags & _DIRTY:
                    yield from range(offset // CHUNK, -(-(offset + length) // CHUNK))
        finally:
            export.close()

    def _bitmap(self, node: str) -> dict[str, Any]:
        return {"node": node, "name": f"{PREFIX}{self._count}", "granularity": CHUNK, "persistent": False}


def _named(bitmap: dict[str, Any]) -> dict[str, Any]:
    return {"node": bitmap["node"], "name": bitmap["name"]}
