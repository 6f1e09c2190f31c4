"""Which guest has a file or block device of this host as a disk, from xenstore."""

from __future__ import annotations

import os
from collections.abc import Iterator

from xenplugin.errors import ConfigError, RefusedError
from xenplugin.image.safety.local_identity import overlapping, own
from xenplugin.xen.xenstore import Store, socket_path

_BACKENDS = ("vbd", "vbd3", "qdisk", "9pfs")


def attached(path: str) -> str | None:
    """Return the name of the domain that has the file or device `path` as a disk; None if none has, or if this host
    is not a dom0. Raises RefusedError if xenstore exists but does not answer."""
    if not os.path.exists(socket_path()) or not os.path.exists(path):
        return None
    wanted = overlapping(path)
    try:
        with Store() as store:
            for domain, params in _disks(store):
                if params and wanted & own(params):
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
