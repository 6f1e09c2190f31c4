"""What a fake Xen host knows of its domains, and what libxl does to them. Imports little: the fake xl starts often.

A host is a directory: `state.json` under `lock` is the hypervisor, `bin/` its programs, `xenstored.sock` its
xenstore (tests/xenstore/standin.py), `memory/` what its suspended guests remember. The world, the directory above,
holds what is true of a guest wherever it runs (fakes/guest.py) and `violations`, which must stay empty.

`stall/NAME`: whoever comes to the point NAME says so in `stall/NAME.reached` and waits until `stall/NAME` is gone.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FAKES = os.path.dirname(os.path.abspath(__file__))
_MESSAGE = struct.Struct("=IIII")
_WRITE, _RM, _ERROR = 11, 13, 16
Domain = dict[str, Any]


class LibxlError(Exception):
    """What libxl says when it fails; `rc` its code."""

    def __init__(self, text: str, rc: int = -3) -> None:
        super().__init__(text)
        self.rc = rc


class Host:
    """The host in directory `root`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.world = os.path.dirname(root)

    @contextmanager
    def locked(self) -> Iterator[dict[str, Any]]:
        """Its state, to be changed; written when the block ends, unless it raises."""
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
        """All but dom0."""
        with self.locked() as state:
            return list(state["domains"])

    def point(self, name: str) -> None:
        """Wait here, if a test says so."""
        stall = os.path.join(self.root, "stall", name)
        if not os.path.exists(stall):
            return
        with open(stall + ".reached", "w"):
            pass
        while os.path.exists(stall):
            time.sleep(0.005)

    def knob(self, name: str, usual: Any) -> Any:
        """A setting of the test."""
        try:
            with open(os.path.join(self.root, "knobs.json")) as file:
                return json.load(file).get(name, usual)
        except FileNotFoundError:
            return usual

    # -- libxl ------------------------------------------------------------------------------------

    def make(self, config: dict[str, Any], name: str, domid: int = 0) -> Domain:
        """libxl__domain_make: a paused domain without devices or memory."""
        with self.locked() as state:
            _free(state, name)
            if not domid or any(one["domid"] == domid for one in state["domains"]):
                domid, state["next"] = state["next"], state["next"] + 1
            uuid = config["c_info"]["uuid"]
            domain = {"domid": domid, "name": name, "uuid": uuid, "paused": True, "shutdown": False,
                      "config": config, "counter": None, "guest": None}  # fmt: skip
            state["domains"].append(domain)
            self.put({f"/local/domain/{domid}/name": name, f"/local/domain/{domid}/vm": f"/vm/{uuid}",
                      f"/vm/{uuid}/name": name, f"/vm/{uuid}/uuid": uuid})  # fmt: skip
        return domain

    def furnish(self, domid: int, counter: int) -> None:
        """It gets its memory, then its devices."""
        with self.locked() as state:
            domain = _named(state, domid)
            domain["counter"] = counter
            for number, disk in enumerate(domain["config"].get("disks", [])):
                self.put(_vbd(domid, 51712 + 16 * number, disk))

    def rename(self, domid: int, name: str) -> None:
        """Raises LibxlError if another domain has that name."""
        with self.locked() as state:
            domain = _named(state, domid)
            if domain["name"] != name:
                _free(state, name)
            domain["name"] = name
            self.put({f"/local/domain/{domid}/name": name, f"/vm/{domain['uuid']}/name": name})

    def destroy(self, domid: int) -> None:
        with self.locked() as state:
            domain = _named(state, domid)
            if domain["guest"]:
                _end(domain["guest"], signal.SIGKILL)
            state["domains"].remove(domain)
            others = any(other["uuid"] == domain["uuid"] for other in state["domains"])
            self.drop(f"/local/domain/{domid}", f"/libxl/{domid}", f"/local/domain/0/backend/vbd/{domid}",
                      *([] if others else [f"/vm/{domain['uuid']}"]))  # fmt: skip

    def unpause(self, domid: int) -> None:
        with self.locked() as state:
            domain = _named(state, domid)
            if domain["counter"] is None:
                raise LibxlError(f"Domain {domid}: nothing was built in it")
            domain["paused"] = False
            self._run(domain)

    def pause(self, domid: int) -> None:
        with self.locked() as state:
            domain = _named(state, domid)
            self._hold(domain)
            domain["paused"] = True

    def suspend(self, domid: int) -> int:
        """The guest answers a suspend request. Its memory: the number of its last write."""
        with self.locked() as state:
            domain = _named(state, domid)
            self._hold(domain)
            domain["shutdown"] = True
            return int(domain["counter"])

    def resume(self, domid: int) -> None:
        """libxl_domain_resume with suspend_cancel 1."""
        with self.locked() as state:
            domain = _named(state, domid)
            if not domain["shutdown"]:
                raise LibxlError(f"Domain {domid}: not suspended")
            domain["shutdown"] = False
            self._run(domain)

    def _run(self, domain: Domain) -> None:
        if domain["guest"] or domain["paused"] or domain["shutdown"]:
            return
        disks = [f"{disk['pdev_path']}:{disk.get('readwrite', 0)}" for disk in domain["config"].get("disks", [])]
        words = [sys.executable, "-IS", os.path.join(FAKES, "guest.py"), self.world, os.path.basename(self.root),
                 domain["uuid"], self._memory(domain), str(domain["counter"]), *disks]  # fmt: skip
        # It takes SIGTERM for a suspend request, from its first moment on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            guest = subprocess.Popen(words, start_new_session=True, stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        domain["guest"] = guest.pid

    def _hold(self, domain: Domain) -> None:
        if domain["guest"]:
            _end(domain["guest"], signal.SIGTERM)
            domain["guest"] = None
            with open(self._memory(domain)) as file:
                domain["counter"] = int(file.read())

    def _memory(self, domain: Domain) -> str:
        return os.path.join(self.root, "memory", str(domain["domid"]))

    # -- xenstore ---------------------------------------------------------------------------------

    def put(self, nodes: dict[str, str]) -> None:
        """Write nodes."""
        self._ask((_WRITE, path.encode() + b"\0" + value.encode()) for path, value in nodes.items())

    def drop(self, *paths: str) -> None:
        """Remove nodes, and those below."""
        self._ask((_RM, path.encode() + b"\0") for path in paths)

    def _ask(self, requests: Iterator[tuple[int, bytes]]) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(os.path.join(self.root, "xenstored.sock"))
            for kind, body in requests:
                sock.sendall(_MESSAGE.pack(kind, 0, 0, len(body)) + body)
                answer, _, _, length = _MESSAGE.unpack(sock.recv(_MESSAGE.size, socket.MSG_WAITALL))
                text = sock.recv(length, socket.MSG_WAITALL) if length else b""
                if answer == _ERROR and (kind, text) != (_RM, b"ENOENT\0"):
                    raise LibxlError(f"xenstore: {text!r}")


def _named(state: dict[str, Any], domid: int) -> Domain:
    for domain in state["domains"]:
        if domain["domid"] == domid:
            return domain  # type: ignore[no-any-return]
    raise LibxlError(f"Domain {domid}: domain doesn't exist", -6)


def _free(state: dict[str, Any], name: str) -> None:
    if name == "Domain-0" or any(domain["name"] == name for domain in state["domains"]):
        raise LibxlError(f'Domain with name "{name}" already exists.', -6)


def _end(pid: int, number: int) -> None:
    """Signal a guest and wait for its end."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(fd, number)
        if not select.select([fd], [], [], 60)[0]:
            raise LibxlError("guest didn't acknowledge suspend, cancelling request", -9)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def _vbd(domid: int, number: int, disk: dict[str, Any]) -> dict[str, str]:
    """The nodes of a disk, as libxl writes them (libxl_disk.c, device_disk_add)."""
    told = {
        "params": disk["pdev_path"],
        "script": "/etc/xen/scripts/block",
        "removable": "0",
        "bootable": "1",
        "dev": disk["vdev"],
        "type": "phy",
        "mode": "w" if disk.get("readwrite") else "r",
        "device-type": "disk",
        "specification": "xen",
        "state": "4",
    }
    at, back = f"/libxl/{domid}/device/vbd/{number}", f"/local/domain/0/backend/vbd/{domid}/{number}"
    nodes = {f"{at}/backend": back, f"{at}/frontend": f"/local/domain/{domid}/device/vbd/{number}"}
    return nodes | {f"{home}/{key}": value for home in (at, back) for key, value in told.items()}
