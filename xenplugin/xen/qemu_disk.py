"""A running guest's disk that QEMU serves: its content and its writes, asked of the guest's own QEMU.

libxl starts a QEMU for each guest with such a disk. It takes commands on a socket that only `xentop` uses otherwise
(qmp-libxenstat-DOMID). There the disk's node is exported by NBD, read only, so that it is read as the guest sees
it, whatever its format. What the guest writes is marked in a dirty bitmap; to drain it, one transaction stops it
and starts another, while no write is under way, and the stopped one is read by NBD.

Everything that is made there has a name that begins with PREFIX, and is taken away at the end. What a run that was
killed has left is taken away by the next one.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
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
    (bytes)."""

    name: str
    format: Format
    size: int


class GuestQemu:
    """The QEMU of a guest, at the QMP socket `path`, with an NBD server of ours. Raises QmpError, OSError."""

    def __init__(self, path: str, patience: float = _PATIENCE) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="xenplugin-")
        self.socket = os.path.join(self._folder.name, "nbd")
        self._serves = False
        self.qmp = Qmp(path, patience)
        try:
            self._clean()
            self.qmp.execute("nbd-server-start", addr={"type": "unix", "data": {"path": self.socket}})
            self._serves = True
        except BaseException:
            self.close()
            raise

    def node(self, disk: Disk) -> NodeInfo:
        """Return the node of `disk`. Raises QmpError if there is none, or if it is another image."""
        wanted = f"{disk.device}-{disk.format}"
        for found in self.qmp.execute("query-named-block-nodes", flat=False):
            if found.get("node-name") != wanted or found.get("drv") != disk.format:
                continue
            image = found["image"]
            file = found.get("file", "")
            if disk.path not in (file, image.get("filename")) and f'"{disk.path}"' not in file:
                raise QmpError(f"its QEMU has {file} as {disk.device}")
            specific = image.get("format-specific", {}).get("data", {})
            format = Format()
            if disk.format != "raw":
                format = of_info(disk.format, image.get("cluster-size"), specific, fixed=False)
            return NodeInfo(wanted, format, int(image["virtual-size"]))
        raise QmpError(f"its QEMU has no node {wanted}")

    def export(self, name: str, node: str, bitmaps: tuple[str, ...] = ()) -> NbdExport:
        """Export a node read only, with these bitmaps, and connect to it."""
        self.qmp.execute(
            "block-export-add", type="nbd", id=f"{PREFIX}{name}", name=name, node_name=node, writable=False,
            bitmaps=list(bitmaps),
        )  # fmt: skip
        contexts = tuple(f"{BITMAP}{bitmap}" for bitmap in bitmaps) or (ALLOCATION,)
        try:
            return NbdExport(self.socket, name, contexts)
        except BaseException:
            self.drop(name)
            raise

    def drop(self, name: str) -> None:
        """Remove an export, even if a client is connected to it."""
        self.qmp.execute("block-export-del", id=f"{PREFIX}{name}", mode="hard")

    def close(self) -> None:
        """Take everything away, as far as QEMU is still there."""
        with contextlib.suppress(QmpError):
            self._clean()
            if self._serves:
                self.qmp.execute("nbd-server-stop")
        self.qmp.close()
        self._folder.cleanup()

    def _clean(self) -> None:
        """Take away what this run or one that was killed has left."""
        exports = [str(found.get("id")) for found in self.qmp.execute("query-block-exports")]
        for id in exports:
            if id.startswith(PREFIX):
                self.qmp.execute("block-export-del", id=id, mode="hard")
        if exports and all(id.startswith(PREFIX) for id in exports) and not self._serves:
            self.qmp.execute("nbd-server-stop")  # nobody else uses it
        for node in self.qmp.execute("query-named-block-nodes", flat=True):
            for bitmap in node.get("dirty-bitmaps", []):
                name = str(bitmap.get("name", ""))
                if name.startswith(PREFIX):
                    self.qmp.execute("block-dirty-bitmap-remove", node=node["node-name"], name=name)


class QemuWrites:
    """The writes to a node of `qemu` from now on, as image.source.changes.Changes. Raises QmpError."""

    def __init__(self, qemu: GuestQemu, node: NodeInfo) -> None:
        self._qemu = qemu
        self._node = node
        self._count = 0
        self._sound = True
        qemu.qmp.execute("block-dirty-bitmap-add", **self._bitmap(0))

    def drain(self) -> set[int] | None:
        """Return the chunks written since the last call; None: unknown, compare all."""
        if not self._sound:
            return None
        old, self._count = self._count, self._count + 1
        stopped = {"node": self._node.name, "name": self._name(old)}
        try:
            self._qemu.qmp.execute(
                "transaction",
                actions=[
                    {"type": "block-dirty-bitmap-disable", "data": stopped},
                    {"type": "block-dirty-bitmap-add", "data": self._bitmap(self._count)},
                ],
            )
            found = set(self._read(old))
            self._qemu.qmp.execute("block-dirty-bitmap-remove", **stopped)
            return found
        except (QmpError, OSError):
            self._sound = False
            return None

    def close(self) -> None:
        """Stop tracking. (The bitmap goes with its GuestQemu.)"""

    def _read(self, count: int) -> Iterator[int]:
        name = f"{self._node.name}-{count}"
        export = self._qemu.export(name, self._node.name, (self._name(count),))
        try:
            for offset, length, flags in export.extents(0, self._node.size, f"{BITMAP}{self._name(count)}"):
                if flags & _DIRTY:
                    yield from range(offset // CHUNK, -(-(offset + length) // CHUNK))
        finally:
            export.close()
            self._qemu.drop(name)

    def _name(self, count: int) -> str:
        return f"{PREFIX}{count}"

    def _bitmap(self, count: int) -> dict[str, Any]:
        return {"node": self._node.name, "name": self._name(count), "granularity": CHUNK, "persistent": False}
