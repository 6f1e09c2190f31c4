"""A fake Xen host: its domains, what libxl does to them, and their nodes in xenstore.

A host is a directory: `state.json`, changed under `lock`, is the hypervisor; `memory/` keeps the state of suspended
guests; the socket `xenstored.sock`, or $XENSTORED_PATH, is its xenstore. What the guests do while they run is up to
a `Guest`. Imports little, because the fake xl is started often.

Points: the fake xl calls `point(NAME)` at each step of a migration (s.* at the source, r.* at the destination). If
the file `stall/NAME` exists, it creates `stall/NAME.reached` and waits until `stall/NAME` is gone, so that a test
can break something exactly there.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

_MESSAGE = struct.Struct("=IIII")
_WRITE, _RM, _ERROR = 11, 13, 16
Domain = dict[str, Any]


class LibxlError(Exception):
    """A failure of libxl with its message; `rc` is its code."""

    def __init__(self, text: str, rc: int = -3) -> None:
        super().__init__(text)
        self.rc = rc


class Guest(Protocol):
    """What the domains of a host do. `counter` stands for a domain's memory: the guest's state when it stopped."""

    def start(self, host: Host, domain: Domain) -> int:
        """Let it run. Returns a number other than 0, such as its process, which the domain's `guest` keeps."""

    def stop(self, host: Host, domain: Domain) -> int:
        """Stop it as a suspend request does. Returns its counter. Raises LibxlError if it does not answer."""

    def kill(self, host: Host, domain: Domain) -> None:
        """End it at once."""

    def stream(self, host: Host, domain: Domain) -> Generator[bytes | memoryview, None, None]:
        """Yield the pieces of its stream; calls `host.suspend` when only what needs a suspended guest is left."""

    def restore(self, host: Host, fd: int) -> int:
        """Read a stream from `fd`. Returns the counter in it. Raises BrokenPipe or ValueError."""


class Host:
    """The host in directory `root`, with `guest` in its domains.

    `store` is the socket of its xenstore; `on_point` is called with each point's name.
    """

    def __init__(
        self, root: str, guest: Guest, store: str | None = None, on_point: Callable[[str], None] | None = None
    ) -> None:
        self.root = root
        self.guest = guest
        self._store = store or os.environ.get("XENSTORED_PATH") or os.path.join(root, "xenstored.sock")
        self._on_point = on_point

    @contextmanager
    def locked(self) -> Iterator[dict[str, Any]]:
        """Give its state to be changed; write it when the block ends, unless it raises."""
        with open(os.path.join(self.root, "lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            path = os.path.join(self.root, "state.json")
            try:
                with open(path) as file:
                    state = json.load(file)
            except FileNotFoundError:
                state = {"next": 1, "domains": []}
            yield state
            with open(path + ".new", "w") as file:
                json.dump(state, file)
            os.rename(path + ".new", path)

    def domains(self) -> list[Domain]:
        """Return all domains but dom0."""
        with self.locked() as state:
            return list(state["domains"])

    def domain(self, domid: int) -> Domain:
        """Return a domain. Raises LibxlError if there is none."""
        with self.locked() as state:
            return _named(state, domid)

    def point(self, name: str) -> None:
        """Report that step `name` is reached, and wait there if a test wants it."""
        if self._on_point is not None:
            self._on_point(name)
        stall = os.path.join(self.root, "stall", name)
        if not os.path.exists(stall):
            return
        with open(stall + ".reached", "w"):
            pass
        while os.path.exists(stall):
            time.sleep(0.005)

    def knob(self, name: str, usual: Any) -> Any:
        """Return the setting `name` of knobs.json."""
        try:
            with open(os.path.join(self.root, "knobs.json")) as file:
                return json.load(file).get(name, usual)
        except FileNotFoundError:
            return usual

    # -- libxl ------------------------------------------------------------------------------------

    def make(self, config: dict[str, Any], name: str, domid: int = 0) -> Domain:
        """Make a paused domain without devices or memory, as libxl__domain_make does: first the domain, then its
        nodes."""
        with self.locked() as state:
            _free(state, name)
            if not domid or any(one["domid"] == domid for one in state["domains"]):
                domid, state["next"] = state["next"], state["next"] + 1
            uuid = config["c_info"]["uuid"]
            domain = {"domid": domid, "name": name, "uuid": uuid, "paused": True, "shutdown": False,
                      "config": config, "counter": None, "guest": None}  # fmt: skip
            state["domains"].append(domain)
        self.put({f"/local/domain/{domid}/name": name, f"/local/domain/{domid}/vm": f"/vm/{uuid}",
                  f"/vm/{uuid}/name": name, f"/vm/{uuid}/uuid": uuid,
                  f"/local/domain/{domid}/control/feature-suspend": "1"})  # fmt: skip
        return domain

    def furnish(self, domid: int, counter: int) -> None:
        """Give a domain its memory, then its devices."""
        with self.locked() as state:
            domain = _named(state, domid)
            domain["counter"] = counter
            paths = [disk.get("pdev_path", "") for disk in domain["config"].get("disks", [])]
            domain["open"] = {path: os.stat(path).st_ino for path in paths if os.path.exists(path)}
            devices = self.knob("physical", {})
            for number, disk in enumerate(domain["config"].get("disks", [])):
                self.put(_vbd(domid, 51712 + 16 * number, disk, devices.get(disk.get("pdev_path"))))

    def opened(self, domain: Domain, path: str) -> str:
        """Return where the file is now that the domain's disk `path` was when it was attached: a backend holds it
        open, so a domain does not notice that it is renamed within its folder."""
        inode = domain.get("open", {}).get(path)
        if inode is None or (os.path.exists(path) and os.stat(path).st_ino == inode):
            return path
        with os.scandir(os.path.dirname(os.path.realpath(path))) as names:
            return next((name.path for name in names if name.inode() == inode), path)

    def rename(self, domid: int, name: str) -> None:
        """Rename a domain. Raises LibxlError if another one has that name."""
        with self.locked() as state:
            domain = _named(state, domid)
            if domain["name"] != name:
                _free(state, name)
            domain["name"] = name
            self.put({f"/local/domain/{domid}/name": name, f"/vm/{domain['uuid']}/name": name})

    def destroy(self, domid: int) -> None:
        """End a domain and remove its nodes."""
        with self.locked() as state:
            domain = _named(state, domid)
            if domain["guest"]:
                self.guest.kill(self, domain)
            state["domains"].remove(domain)
            others = any(other["uuid"] == domain["uuid"] for other in state["domains"])
            self.drop(f"/local/domain/{domid}", f"/libxl/{domid}", f"/local/domain/0/backend/vbd/{domid}",
                      *([] if others else [f"/vm/{domain['uuid']}"]))  # fmt: skip

    def unpause(self, domid: int) -> None:
        """Let a domain run. Raises LibxlError if it has no memory."""
        with self.locked() as state:
            domain = _named(state, domid)
            if domain["counter"] is None:
                raise LibxlError(f"Domain {domid}: nothing was built in it")
            domain["paused"] = False
            self._run(domain)

    def pause(self, domid: int) -> None:
        """Stop a domain's CPUs."""
        with self.locked() as state:
            domain = _named(state, domid)
            self._hold(domain)
            domain["paused"] = True

    def suspend(self, domid: int) -> int:
        """Have the guest suspend itself. Returns its counter."""
        with self.locked() as state:
            domain = _named(state, domid)
            self._hold(domain)
            domain["shutdown"] = True
            return int(domain["counter"])

    def resume(self, domid: int) -> None:
        """Resume a suspended domain, as libxl_domain_resume with suspend_cancel does."""
        with self.locked() as state:
            domain = _named(state, domid)
            if not domain["shutdown"]:
                raise LibxlError(f"Domain {domid}: not suspended")
            domain["shutdown"] = False
            self._run(domain)

    def _run(self, domain: Domain) -> None:
        if not (domain["guest"] or domain["paused"] or domain["shutdown"]):
            domain["guest"] = self.guest.start(self, domain)

    def _hold(self, domain: Domain) -> None:
        if domain["guest"]:
            domain["counter"] = self.guest.stop(self, domain)
            domain["guest"] = None

    # -- xenstore ---------------------------------------------------------------------------------

    def put(self, nodes: dict[str, str]) -> None:
        """Write nodes to xenstore."""
        self._ask((_WRITE, path.encode() + b"\0" + os.fsencode(value)) for path, value in nodes.items())

    def drop(self, *paths: str) -> None:
        """Remove nodes from xenstore, with those below them."""
        self._ask((_RM, path.encode() + b"\0") for path in paths)

    def _ask(self, requests: Iterator[tuple[int, bytes]]) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self._store)
            for kind, body in requests:
                sock.sendall(_MESSAGE.pack(kind, 0, 0, len(body)) + body)
                answer, _, _, length = _MESSAGE.unpack(sock.recv(_MESSAGE.size, socket.MSG_WAITALL))
                text = sock.recv(length, socket.MSG_WAITALL) if length else b""
                if answer == _ERROR and (kind, text) != (_RM, b"ENOENT\0"):
                    raise LibxlError(f"xenstore: {text!r}")


def find_disks(config: dict[str, Any]) -> None:
    """Look for the disks of a guest as libxl does before it makes the domain (libxl__device_disk_set_backend), and,
    for an HVM guest's CDs, as its QEMU does later. Raises LibxlError if one is missing."""
    for disk in config.get("disks", []):
        path = disk.get("pdev_path", "")
        if disk.get("format") == "empty" and disk.get("is_cdrom"):
            continue
        if "script" not in disk and not os.path.exists(path):
            raise LibxlError(f"Disk vdev={disk['vdev']} failed to stat: {path}", -6)


def _named(state: dict[str, Any], domid: int) -> Domain:
    for domain in state["domains"]:
        if domain["domid"] == domid:
            return domain  # type: ignore[no-any-return]
    raise LibxlError(f"Domain {domid}: domain doesn't exist", -21)


def _free(state: dict[str, Any], name: str) -> None:
    if name == "Domain-0" or any(domain["name"] == name for domain in state["domains"]):
        raise LibxlError(f'Domain with name "{name}" already exists.', -6)


def _vbd(domid: int, number: int, disk: dict[str, Any], device: str | None) -> dict[str, str]:
    """Return the nodes of a disk as libxl writes them (libxl_disk.c, device_disk_add); `device`: major:minor."""
    script = disk.get("script", "block")
    values = {
        "params": disk.get("pdev_path", ""),
        "script": script if "/" in script else f"/etc/xen/scripts/{script}",
        "removable": "0",
        "bootable": "1",
        "dev": disk["vdev"],
        "type": "phy",
        "mode": "w" if disk.get("readwrite") else "r",
        "device-type": "cdrom" if disk.get("is_cdrom") else "disk",
        "specification": "xen",
        "state": "4",
    }
    at, back = f"/libxl/{domid}/device/vbd/{number}", f"/local/domain/0/backend/vbd/{domid}/{number}"
    nodes = {f"{at}/backend": back, f"{at}/frontend": f"/local/domain/{domid}/device/vbd/{number}"}
    if device:
        values["physical-device"] = device
    return nodes | {f"{home}/{key}": value for home in (at, back) for key, value in values.items()}
