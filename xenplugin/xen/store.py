"""xenstore, the only place that imports pyxs (a test holds this).

pyxs has not changed since 2019, its payloads are limited to 4096 bytes, and its own router waits for ever for a
xenstored that hangs up or does not answer: everything about it stays behind the few functions here.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
from collections.abc import Iterator
from typing import Any

import pyxs
from pyxs.connection import UnixSocketConnection

from xenplugin.errors import RefusedError

SOCKET = "/var/run/xenstored/socket"
#: Seconds in which each request must be answered.
PATIENCE = 10.0
_BACKENDS = ("vbd", "vbd3", "qdisk", "9pfs")


def socket_path() -> str:
    """Where xenstored listens; XENSTORED_PATH as for Xen's own tools."""
    return os.environ.get("XENSTORED_PATH", SOCKET)


def attached(path: str) -> str | None:
    """Name of the domain that has the file or device `path` as a disk, None if none has, or if this host
    is no dom0. Raises RefusedError if there is a xenstore but it does not answer: then nobody knows."""
    if not os.path.exists(socket_path()) or not os.path.exists(path):
        return None
    wanted = _overlapping(path)
    try:
        with pyxs.Client(router=_Router(socket_path())) as client:
            for domain, params in _disks(client):
                if _identity(params) in wanted:
                    return _text(client.read(f"/local/domain/{domain}/name".encode(), domain.encode()))
    except (pyxs.PyXSError, OSError) as exc:
        raise RefusedError(
            f"xenstore does not say whether a guest has {path}: {exc}",
            hint="run this as root, or see whether xenstored runs",
        ) from None
    return None


class _Router:
    """What pyxs.Client sends its requests through: one at a time, in the caller's thread, with a time limit."""

    def __init__(self, path: str) -> None:
        self.connection = UnixSocketConnection(path)

    def start(self) -> None:
        self.connection.connect()
        self.connection.transport.sock.settimeout(PATIENCE)

    def send(self, packet: Any) -> _Reply:
        self.connection.send(packet)
        return _Reply(self.connection.recv())

    def terminate(self) -> None:
        self.connection.close()


class _Reply:
    def __init__(self, packet: Any) -> None:
        self._packet = packet

    def get(self) -> Any:
        return self._packet


def _disks(client: pyxs.Client) -> Iterator[tuple[str, str]]:
    """(domain id, path) of every disk that a backend of this host serves."""
    for kind in _BACKENDS:
        root = f"/local/domain/0/backend/{kind}"
        for domain in _list(client, root):
            for device in _list(client, f"{root}/{domain}"):
                params = _text(client.read(f"{root}/{domain}/{device}/params".encode(), b""))
                # "aio:/path" and the like; a plain path has no colon before its first slash
                head, colon, tail = params.partition(":")
                yield domain, tail if colon and "/" not in head else params


def _list(client: pyxs.Client, path: str) -> list[str]:
    try:
        return [_text(name) for name in client.list(path.encode())]
    except pyxs.PyXSError as exc:
        if exc.args[0] == errno.ENOENT:
            return []  # no such backend
        raise  # it must not pass for one that serves nothing


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


_Identity = tuple[str, int, int]


def _identity(path: str) -> _Identity:
    """What makes two names the same disk: the device's number, or the file's inode."""
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return ("missing", 0, 0)
    if info.st_rdev:
        return ("device", info.st_rdev, 0)
    return ("file", info.st_dev, info.st_ino)


def _overlapping(path: str) -> set[_Identity]:
    """The disk `path` and, of a device, its partitions and the disk it is a partition of."""
    identity = _identity(path)
    found = {identity}
    if identity[0] != "device":
        return found
    here = f"/sys/dev/block/{os.major(identity[1])}:{os.minor(identity[1])}"
    around = [os.path.dirname(name) for name in glob.glob(f"{here}/*/partition")]
    if os.path.exists(f"{here}/partition"):
        around.append(os.path.dirname(os.path.realpath(here)))
    for directory in around:
        with contextlib.suppress(OSError, ValueError):
            with open(f"{directory}/dev", encoding="ascii") as file:
                major, minor = file.read().split(":")
            found.add(("device", os.makedev(int(major), int(minor)), 0))
    return found
