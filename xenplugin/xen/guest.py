"""A guest and its disks: what xenstore says, and whether xl's configuration says the same.

Strategy: only nodes that the guest cannot write are believed: its name and uuid, and libxl's own copy of what it
told the backend (/libxl/DOMID/device). Whether a guest runs, is paused or suspended is known to the hypervisor
alone and stands nowhere in xenstore: ask `xl list`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xenplugin.errors import PeerError, RefusedError
from xenplugin.xen.xenstore import Store, plain_path
from xenplugin.xen.xl import INCOMING

_DEVICES = ("vbd", "virtio_disk")
_LIST = "xl list shows the guests, xl block-list GUEST its disks"


@dataclass(frozen=True)
class Disk:
    """`device` as the guest knows it ("xvda"). `path`: file or block device, "" for an empty drive. `backend`:
    which kind serves it ("vbd", "qdisk"), in domain `backend_domid`. `type` and `script` as libxl told it, `format`
    as QEMU is told ("raw" for others). `physical`: the block device it is served from, (major, minor), where known;
    of a file that is a loop device."""

    device: str
    path: str
    writable: bool
    backend: str
    type: str
    format: str = "raw"
    script: str = ""
    cdrom: bool = False
    backend_domid: int = 0
    physical: tuple[int, int] | None = None


@dataclass(frozen=True)
class Guest:
    """A domain, with its disks in the order of their numbers."""

    domid: int
    name: str
    uuid: str
    disks: tuple[Disk, ...]


class UnknownGuest(RefusedError):
    """xenstore knows no such guest."""


def find(store: Store, who: str) -> Guest:
    """The guest with this name or domain id, as xl takes it. Raises UnknownGuest if there is none."""
    for domid in _domids(store):
        if who in (str(domid), store.read(f"/local/domain/{domid}/name")) and (guest := _guest(store, domid)):
            return guest
    raise UnknownGuest(f"there is no guest {who} on this host", hint=_LIST)


def by_uuid(store: Store, uuid: str) -> Guest | None:
    """The guest with this uuid, None if it is not here. One that is just arriving is not meant."""
    for domid in _domids(store):
        if (store.read(f"/local/domain/{domid}/vm") or "").lower() == f"/vm/{uuid.lower()}":
            guest = _guest(store, domid)
            if guest and not guest.name.endswith(INCOMING):
                return guest
    return None


def of_config(store: Store, config: Mapping[str, Any]) -> Guest:
    """The guest that xl's configuration (message 2) is of: by its uuid, and, since with `xl migrate -C`
    that may be another, by its name. Raises RefusedError if it is not on this host, PeerError for no configuration.
    """
    name, uuid = identity(config)
    return by_uuid(store, uuid) or find(store, name)


def identity(config: Mapping[str, Any]) -> tuple[str, str]:
    """Name and uuid that the guest has at the far host. (With `xl migrate -C` they are the file's, and a file
    without a uuid gets a new one.) Raises PeerError for no configuration."""
    about = _table(config, "c_info")
    name, uuid = _text(about, "name"), _text(about, "uuid").lower()
    if not name or not uuid:
        raise PeerError("xl's configuration has no name or no uuid")
    return name, uuid


def memory(config: Mapping[str, Any]) -> int:
    """Bytes of memory that the guest is to have, 0 if its configuration does not say that."""
    about = config.get("b_info")
    found = about.get("target_memkb", about.get("max_memkb")) if isinstance(about, dict) else None
    return 1024 * found if isinstance(found, int) else 0


def check(
    config: Mapping[str, Any], guest: Guest, say: Callable[[str], None] = lambda text: None
) -> tuple[Disk, ...]:
    """The disks that must move with the guest, writable or not.

    `config` is xl's configuration as libxl writes it in JSON, which leaves out what is 0, empty or the default.
    `say` is told what is left behind: CD drives. Raises RefusedError if it does not agree with xenstore, or if
    there is a disk that cannot be moved; PeerError for what is no configuration.
    """
    name, uuid = identity(config)
    if guest.uuid != uuid and guest.name != name:
        raise RefusedError(f"xl's configuration is of {name!r}, not of {guest.name}", hint="give -C its own file")
    disks = config.get("disks", [])
    if not isinstance(disks, list) or not all(isinstance(disk, dict) for disk in disks):
        raise PeerError("xl's configuration has disks of another shape than libxl writes")
    known = {disk.device: disk for disk in guest.disks}
    told = {_text(disk, "vdev"): disk for disk in disks}
    if len(told) < len(disks) or told.keys() != known.keys():
        raise RefusedError(
            f"{guest.name} has the disks {_names(known)}, its configuration {_names(told)}",
            hint="xl block-list shows what it has; wait until a disk that comes or goes has done so",
        )
    moved = [disk for name, disk in known.items() if not _left(disk, told[name], say)]
    for disk in moved:
        if reason := _reason(disk, told[disk.device]):
            raise RefusedError(
                f"{guest.name} cannot move with its disk {disk.device} ({disk.path or 'no path'}): {reason[0]}",
                hint=reason[1],
            )
    twice = {disk.path for disk in moved if [other.path for other in moved].count(disk.path) > 1}
    if twice:
        raise RefusedError(f"{guest.name} has {min(twice)} twice", hint="detach one of both")
    return tuple(moved)


def _left(disk: Disk, told: Mapping[str, Any], say: Callable[[str], None]) -> bool:
    if not disk.cdrom and not told.get("is_cdrom"):
        return False
    if disk.writable:
        return False  # a disk, whatever it is called
    if disk.path:
        say(f"{disk.device} is a CD: {disk.path} is not moved, the far host must have it there")
    else:
        say(f"{disk.device} is an empty CD drive: nothing to move")
    return True


def _reason(disk: Disk, told: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why a disk cannot be moved, and what to do."""
    elsewhere = _text(told, "backend_domname") not in ("", "0", "Domain-0") or told.get("backend_domid", 0) != 0
    image = _text(told, "format") or disk.format
    script = os.path.basename(_text(told, "script") or disk.script)
    path = _text(told, "pdev_path")
    if disk.backend_domid or elsewhere:
        return "another domain serves it", "its data is not dom0's: move it by that domain's own means"
    if image not in ("raw", "unknown") or disk.format != "raw":
        worse = image if disk.format == "raw" else disk.format
        return f"its format is {worse}", "convert it: qemu-img convert -O raw OLD NEW, and format=raw for the guest"
    if disk.backend not in ("vbd", "qdisk") or _text(told, "specification") == "virtio":
        return f"it is served as {disk.backend}", "give the guest an ordinary Xen disk (backendtype phy or qdisk)"
    if script not in ("", "block"):
        return f"the script {script} sets it up", "only the standard script 'block' is known"
    if not disk.path or not path:
        return "it is no file or block device of this host", "give the disk a target"
    if disk.path != path:
        return f"xl's configuration says {path}", "other paths at the far host: `paths` in its xenplugin.conf"
    if not path.startswith("/"):
        return "its path is not absolute", "give the disk an absolute target"
    return None


def _names(table: Mapping[str, Any]) -> str:
    return ", ".join(sorted(table)) or "(none)"


def _table(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    if not isinstance(value, dict):
        raise PeerError(f"xl's configuration has no {key}")
    return value


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str):
        raise PeerError(f"xl's configuration has a {key} that is no text")
    return value


# -- what xenstore says ----------------------------------------------------------------------------


def _domids(store: Store) -> Iterator[int]:
    yield from (int(name) for name in store.list("/local/domain") if name.isdecimal())


def _guest(store: Store, domid: int) -> Guest | None:
    home = f"/local/domain/{domid}"
    name, vm = store.read(f"{home}/name"), store.read(f"{home}/vm")
    if domid == 0 or not name or not vm:
        return None
    disks = []
    for kind in _DEVICES:
        root = f"/libxl/{domid}/device/{kind}"
        for number in sorted(store.list(root), key=lambda text: (len(text), text)):
            if disk := _disk(store, f"{root}/{number}"):
                disks.append(disk)
    return Guest(domid, name, vm.removeprefix("/vm/").lower(), tuple(disks))


def _disk(store: Store, at: str) -> Disk | None:
    """None for one that has gone meanwhile."""

    def read(key: str) -> str:
        return store.read(f"{at}/{key}") or ""

    backend = read("backend")
    match = re.fullmatch(r"/local/domain/(\d+)/backend/(\w+)/\d+/\d+", backend)
    if match is None:
        return None
    params, kind = read("params"), match[2]
    image = params.partition(":")[0] if kind == "qdisk" and ":" in params else "raw"
    return Disk(
        device=read("dev"),
        path=plain_path(params),
        writable=read("mode") == "w",
        backend=kind,
        type=read("type"),
        format="raw" if image == "aio" else image,  # libxl's word for a raw file
        script=read("script"),
        cdrom=read("device-type") == "cdrom",
        backend_domid=int(match[1]),
        physical=_physical(store.read(f"{backend}/physical-device") or ""),
    )


def _physical(text: str) -> tuple[int, int] | None:
    match = re.fullmatch("([0-9a-f]{1,3}):([0-9a-f]{1,5})", text)
    return (int(match[1], 16), int(match[2], 16)) if match else None
