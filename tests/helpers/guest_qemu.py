"""A QEMU without a machine that stands in for a guest's: it takes the same commands, serves the disk xvda in a
thread of its own, as Xen's disks are, and exports it for the guest's writes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.helpers.program import wait_until
from xenplugin.geometry import CHUNK
from xenplugin.image.formats.create import create
from xenplugin.image.formats.kinds import Format
from xenplugin.image.formats.nbd import NbdExport
from xenplugin.xen.guest import Disk
from xenplugin.xen.qemu_disk import GuestQemu
from xenplugin.xen.qmp import Qmp

#: Bytes of the disk.
SIZE = 64 * CHUNK


class GuestQemuStand:
    """The stand-in, with the disk xvda of `format` in `folder`, made if it is not there. `emulated`: as if the
    guest's own driver had not taken the emulated disk away yet."""

    def __init__(self, folder: Path, format: str, *, emulated: bool = False) -> None:
        path = folder / "disk"
        if format == "raw":
            path.touch()
            os.truncate(path, SIZE)
        elif not path.exists():
            create(str(path), Format(format), SIZE)
        self.disk = Disk("xvda", str(path), True, "qdisk", "qdisk", format=format)
        self.path = str(folder / "qmp")
        self.node = f"xvda-{format}"
        file = {"driver": "file", "filename": str(path), "locking": "off"}
        node = {"driver": format, "node-name": self.node, "file": file}
        drive = f"if=none,id=ide0-hd0,format={format},file={path},file.locking=off"
        self.process = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none"),
                *("-object", "iothread,id=xvda", "-blockdev", json.dumps(node)),
                *(("-drive", drive) if emulated else ()),
                *("-qmp", f"unix:{self.path},server=on,wait=off"),
            ],
            stdin=subprocess.DEVNULL,
        )
        wait_until(self._listens, "QEMU listens")
        device = {"type": "unix", "path": str(folder / "device")}
        self.execute(  # its user, which keeps it in that thread
            "block-export-add", type="vhost-user-blk", id="device", node_name=self.node, writable=True, addr=device,
            iothread="xvda", fixed_iothread=True,
        )  # fmt: skip

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.path) == 0

    def execute(self, command: str, **arguments: Any) -> Any:
        """Have it run a command of QMP, over a connection of its own. Nobody else may be connected."""
        qmp = Qmp(self.path, 20)
        try:
            return qmp.execute(command, **arguments)
        finally:
            qmp.close()

    def end(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(20)

    def writer(self, qemu: GuestQemu, node: str = "") -> NbdExport:
        """What the guest writes through, to the node of that name; it shares the server, which a guest's QEMU does
        not need for that."""
        node = node or self.node
        qemu.execute("block-export-add", type="nbd", id="guest", name="guest", node_name=node, writable=True)
        return Writer(qemu)


class Writer(NbdExport):
    """The connection to the export `guest`."""

    def __init__(self, qemu: GuestQemu) -> None:
        self.qemu = qemu
        super().__init__(qemu.socket, "guest")

    def _disconnect(self) -> None:
        self.qemu.execute("block-export-del", id="guest", mode="hard")
