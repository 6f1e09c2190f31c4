"""xenstore, the only place that imports pyxs (a test holds this).

pyxs has not changed since 2019, and its payloads are limited to 4096 bytes: everything about it stays behind
the few functions here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pyxs

from xenplugin.errors import RefusedError

SOCKET = "/var/run/xenstored/socket"
_BACKENDS = ("vbd", "vbd3", "qdisk", "9pfs")


def socket_path() -> str:
    """Where xenstored listens; XENSTORED_PATH as for Xen's own tools."""
    return os.environ.get("XENSTORED_PATH", SOCKET)


def attached(path: str) -> str | None:
    """Name of the domain that has the file or device `path` as a disk, None if none has, or if this host
    is no dom0. Raises RefusedError if there is a xenstore but it does not answer: then nobody knows."""
    if not os.path.exists(socket_path()) or not os.path.exists(path):
        return None
    wanted = _identity(path)
    try:
        with pyxs.Client(unix_socket_path=socket_path()) as client:
            for domain, params in _disks(client):
                if _identity(params) == wanted:
                    return _text(client.read(f"/local/domain/{domain}/name".encode(), domain.encode()))
    except (pyxs.PyXSError, OSError) as exc:
        raise RefusedError(
            f"xenstore does not say whether a guest has {path}: {exc}",
            hint="run this as root, or see whether xenstored runs",
        ) from None
    return None


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
    except pyxs.PyXSError:
        return []  # ENOENT: no such backend


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _identity(path: str) -> tuple[str, int, int]:
    """What makes two names the same disk: the device's number, or the file's inode."""
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return ("missing", 0, 0)
    if info.st_rdev:
        return ("device", info.st_rdev, 0)
    return ("file", info.st_dev, info.st_ino)
