"""The destination side of the fake xl: migrate_receive() and create_domain(). Its points are called r.*"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys

from lab.fakexen.host import Host, LibxlError, find_disks
from lab.fakexen.messages import BANNER, GO, MAGIC, READY, REPORT, BrokenPipe, complain, expect, read, write


def receive(host: Host, paused: bool) -> int:
    """Receive a domain, as migrate_receive() does. Returns xl's exit status."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    complain("migration target: Ready to receive domain.")
    host.point("r.banner")
    try:
        write(1, BANNER)
        domid, name = _restore(host)
    except (BrokenPipe, LibxlError, ValueError) as error:
        complain(f"migration target: Domain creation failed (code {getattr(error, 'rc', -3)}): {error}")
        return 1
    complain("migration target: Transfer complete, requesting permission to start domain.")
    host.point("r.restored")
    try:
        write(1, READY)
        host.point("r.ready")
        rc = _started(host, domid, name, paused)
        host.point("r.started")
        write(1, REPORT)
        write(1, bytes([-rc]))
        host.point("r.reported")
        if rc:
            complain("migration target: Failure, destroying our copy.")
            host.destroy(domid)
            complain("migration target: Cleanup OK, granting sender permission to resume.")
            write(1, GO)
    except (BrokenPipe, LibxlError) as error:
        complain(f"migration target: {error}")
        return 1
    return 0


def _restore(host: Host) -> tuple[int, str]:
    """Create the domain from the stream. Returns its id and its name without suffix."""
    header = read(0, 48, "header", "<incoming migration stream>")
    order, mandatory, _, length = struct.unpack("<4I", header[32:])
    if header[:32] != MAGIC or order != 0x01020304 or mandatory != 3:
        complain("File has wrong magic number - corrupt or for a different tool?")
        sys.exit(1)
    body = read(0, length, "optdata", "<incoming migration stream>")
    (size,) = struct.unpack("<I", body[:4])
    config = json.loads(os.fsdecode(body[4 : 4 + size].rstrip(b"\0")))
    complain("Parsing config from <saved>")
    name = config["c_info"]["name"]
    find_disks(config)
    host.point("r.config")
    domid = host.make(config, name + "--incoming", config["c_info"].get("domid", 0))["domid"]
    host.point("r.made")
    try:
        counter = host.guest.restore(host, 0)
        host.point("r.read")
        host.furnish(domid, counter)
    except (BrokenPipe, LibxlError, ValueError):
        host.point("r.destroying")
        host.destroy(domid)
        raise
    return domid, name


def _started(host: Host, domid: int, name: str, paused: bool) -> int:
    """Wait for permission and start the domain. Returns 0 or libxl's code."""
    try:
        expect(0, GO, "GO message", "migration stream")
    except BrokenPipe:
        return -1
    complain("migration target: Got permission, starting domain.")
    host.point("r.cleared")
    try:
        host.rename(domid, name)
        host.point("r.renamed")
        if not paused:
            host.unpause(domid)
    except LibxlError as error:
        complain(f"libxl: error: {error}")
        return error.rc
    complain("migration target: Domain started successsfully.")
    return 0
