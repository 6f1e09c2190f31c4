"""Which guest has a file or block device of this host as a disk, from xenstore."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator

from xenplugin.errors import ConfigError, RefusedError
from xenplugin.xen.xenstore import Store, socket_path

_BACKENDS = ("vbd", "vbd3", "qdisk", "9pfs")


def attached(path: str) -> str | None:
    """Return the name of the domain that has the file or device `path` as a disk; None if none has, or if this host
    is not a dom0. Raises RefusedError if xenstore exists but does not answer."""
    if not os.path.exists(socket_path()) or not os.path.exists(path):
        return None
    wanted = _overlapping(path)
    try:
        with Store() as store:
            for domain, params in _disks(store):
                if _identity(params) in wanted:
                    return store.read(f"/local/domain/{domain}/name") or domain
    except (RefusedError, ConfigError) as exc:
        raise RefusedError(
            f"cannot find out from xenstore whether a guest uses {path}: {exc}",
            hint="run this as root, or check that xenstored runs",
        ) from None
    return None


def _disks(store: Store) -> Iterator[tuple[str, str]]:
    """Yield (domain id, path) of every disk that a backend of this host serves."""
    for kind in _BACKENDS:
        root = f"/local/domain/0/backend/{kind}"
        for domain in store.list(root):
            for device in store.list(f"{root}/{domain}"):
                yield domain, plain_path(store.read(f"{root}/{domain}/{device}/params") or "")


def plain_path(params: str) -> str:
    """Return the path in a backend's node `params`: "aio:/path" and the like, or a plain path, which has no colon
    before its first slash."""
    head, colon, tail = params.partition(":")
    return tail if colon and "/" not in head else params


_Identity = tuple[str, int, int]


def _identity(path: str) -> _Identity:
    """Return the same value for all names of one disk: its device number, or the file's inode."""
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return ("missing", 0, 0)
    if info.st_rdev:
        return ("device", info.st_rdev, 0)
    return ("file", info.st_dev, info.st_ino)


def _overlapping(path: str) -> set[_Identity]:
    """Return the identities of the disk and, for a device, of its partitions and of the disk it is a partition
    of."""
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
