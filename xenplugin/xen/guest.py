"""A guest and its disks, from xenstore, and the check that xl's configuration agrees with it.

Only nodes that the guest cannot write are read: its name and uuid, and libxl's own copy of the backend's settings
(/libxl/DOMID/device). Whether a guest runs, is paused or suspended is not in xenstore: `xl list` shows it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xenplugin.errors import PeerError, RefusedError
from xenplugin.xen.attached import plain_path
from xenplugin.xen.disk_formats import LIBXL, QEMU
from xenplugin.xen.xenstore import Store
from xenplugin.xen.xl import INCOMING

#: The folder of the scripts that attach disks and network interfaces.
SCRIPTS = "/etc/xen/scripts"
_DEVICES = ("vbd", "virtio_disk")
_LIST = "xl list shows the guests, xl block-list GUEST the disks of one"


@dataclass(frozen=True)
class Disk:
    """A guest's disk. `device`: its name in the guest ("xvda"); `path`: file or block device, "" for an empty
    drive; `backend`: the kind that serves it ("vbd", "qdisk"), in domain `backend_domid`; `type` and `script`:
    libxl's settings; `format`: QEMU's name ("raw" for other backends); `physical`: the block device that serves
    it (major, minor), if known: for a file that is a loop device."""

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

    @property
    def block_script(self) -> str:
        """The name of the script that attaches it, "" if it is Xen's standard one."""
        name = os.path.basename(self.script)
        return "" if name == "block" else name

    @property
    def is_cd(self) -> bool:
        """Whether it is a CD, which the guest only reads."""
        return self.cdrom and not self.writable


@dataclass(frozen=True)
class GuestDisks:
    """A guest's disks by what its own host knows of them. `images`: their content moves, unless both
    hosts share it; `scripts`: a block script attaches them, on the far host as well; `cds`: CD images, which the
    guest only reads."""

    images: tuple[Disk, ...] = ()
    scripts: tuple[Disk, ...] = ()
    cds: tuple[Disk, ...] = ()


@dataclass(frozen=True)
class Guest:
    """A domain, with its disks in the order of their numbers."""

    domid: int
    name: str
    uuid: str
    disks: tuple[Disk, ...]


class UnknownGuest(RefusedError):
    """There is no such guest in xenstore."""


def find(store: Store, who: str) -> Guest:
    """Return the guest with this domain id, if `who` is all digits, or with this name: xl decides so too. Raises
    UnknownGuest if there is none."""
    if not re.fullmatch("[0-9]+", who):
        return by_name(store, who)
    for domid in _domids(store):
        if str(domid) == who.lstrip("0") and (guest := _guest(store, domid)):
            return guest
    raise UnknownGuest(f"there is no guest with the domain id {who} on this host", hint=_LIST)


def by_name(store: Store, name: str) -> Guest:
    """Return the guest with this name. Raises UnknownGuest if there is none."""
    for domid in _domids(store):
        if store.read(f"/local/domain/{domid}/name") == name and (guest := _guest(store, domid)):
            return guest
    raise UnknownGuest(f"there is no guest {name or repr(name)} on this host", hint=_LIST)


def by_uuid(store: Store, uuid: str) -> Guest | None:
    """Return the guest with this uuid; None if it is not here. A guest that is just arriving does not count. Raises
    RefusedError if there are two."""
    found = [
        guest
        for domid in _domids(store)
        if (store.read(f"/local/domain/{domid}/vm") or "").lower() == f"/vm/{uuid.lower()}"
        and (guest := _guest(store, domid))
        and not guest.name.endswith(INCOMING)
    ]
    if len(found) > 1:
        raise RefusedError(
            f"the domains {', '.join(str(guest.domid) for guest in found)} have the same uuid {uuid}",
            hint="xl list -v shows them; give one of the two a uuid of its own",
        )
    return found[0] if found else None


def of_config(store: Store, config: Mapping[str, Any]) -> Guest:
    """Return the guest that xl's configuration (message 2) is of: by its uuid, or else by its name, because with
    `xl migrate -C` the uuid may be another. Raises RefusedError if it is not on this host, PeerError if the
    configuration is malformed."""
    name, uuid = identity(config)
    return by_uuid(store, uuid) or by_name(store, name)


def identity(config: Mapping[str, Any]) -> tuple[str, str]:
    """Return the name and uuid that the guest will have on the far host. (With `xl migrate -C` they are those of
    the file; a file without a uuid gets a new one.) Raises PeerError if the configuration is malformed."""
    about = _table(config, "c_info")
    name, uuid = _text(about, "name"), _text(about, "uuid").lower()
    if not name or not uuid:
        raise PeerError("xl's configuration has no name or no uuid")
    return name, uuid


def memory(config: Mapping[str, Any]) -> int:
    """Return the size of the guest's memory in bytes; 0 if its configuration does not give it."""
    about = config.get("b_info")
    found = about.get("target_memkb", about.get("max_memkb")) if isinstance(about, dict) else None
    return 1024 * found if isinstance(found, int) else 0


def check(config: Mapping[str, Any], guest: Guest) -> GuestDisks:
    """Return what becomes of the guest's disks, writable or not.

    `config` is xl's configuration as libxl writes it in JSON: without values that are 0, empty or the default.
    Raises RefusedError if the configuration does not agree with xenstore, or if a disk cannot move; PeerError if
    the configuration is malformed.
    """
    found, refusals = examine(config, guest)
    if refusals:
        raise refusals[0]
    return found


def examine(config: Mapping[str, Any], guest: Guest) -> tuple[GuestDisks, list[RefusedError]]:
    """Return what becomes of the disks with which the guest can move, and why it cannot with the others. As `check`
    otherwise."""
    name, uuid = identity(config)
    if guest.uuid != uuid and guest.name != name:
        raise RefusedError(
            f"xl's configuration is for {name!r}, not for {guest.name}", hint="give -C the guest's own file"
        )
    disks = config.get("disks", [])
    if not isinstance(disks, list) or not all(isinstance(disk, dict) for disk in disks):
        raise PeerError("the disk list in xl's configuration is malformed")
    known = {disk.device: disk for disk in guest.disks}
    configured = {_text(disk, "vdev"): disk for disk in disks}
    if len(configured) < len(disks) or configured.keys() != known.keys():
        raise RefusedError(
            f"{guest.name} has the disks {_names(known)}, but xl's configuration has {_names(configured)}",
            hint="xl block-list shows its disks; if one is being attached or detached, wait for that",
        )
    images: list[Disk] = []
    scripts: list[Disk] = []
    cds: list[Disk] = []
    refusals = []
    for disk in known.values():
        row = configured[disk.device]
        script = script_of(row)
        cd = not disk.writable and (disk.cdrom or bool(row.get("is_cdrom")))
        if cd and not disk.path and not _text(row, "pdev_path"):
            continue  # an empty drive
        reason = _reason(disk, row) or (_script_reason(script) if script else _image_reason(disk, row))
        if reason:
            text = f"{guest.name} cannot move with its disk {disk.device} ({disk.path or 'no path'}): {reason[0]}"
            refusals.append(RefusedError(text, hint=reason[1]))
        elif not script and disk.path in [other.path for other in images]:
            text = f"{guest.name} has the disk {disk.path} twice"
            refusals.append(RefusedError(text, hint="detach one of the two"))
        else:
            (scripts if script else cds if cd else images).append(disk)
    return GuestDisks(tuple(images), tuple(scripts), tuple(cds)), refusals


def script_of(configured: Mapping[str, Any]) -> str:
    """Return the script that attaches a disk of xl's configuration, "" if it is Xen's standard one. Raises
    PeerError."""
    script = _text(configured, "script")
    return "" if os.path.basename(script) in ("", "block") else script


def _reason(disk: Disk, configured: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return why a disk of any kind keeps the guest from moving, and a hint; None if it does not."""
    elsewhere = (
        _text(configured, "backend_domname") not in ("", "0", "Domain-0") or configured.get("backend_domid", 0) != 0
    )
    path = _text(configured, "pdev_path")
    if disk.backend_domid or elsewhere:
        return "another domain serves it", "its data is not in dom0: move it by that domain's own means"
    if disk.backend not in ("vbd", "qdisk") or _text(configured, "specification") == "virtio":
        return f"it is served as {disk.backend}", "give the guest an ordinary Xen disk (backendtype phy or qdisk)"
    if not disk.path or not path:
        return "it is not a file or block device of this host", "give the disk a target"
    if disk.path != path:
        return (
            f"xl's configuration has the path {path}",
            "to use other paths on the far host, set `paths` in its xenplugin.conf",
        )
    if os.path.basename(script_of(configured)) != disk.block_script:
        return (
            f"the script {disk.block_script or 'block'} attaches it, and xl's configuration has another one",
            "give -C the guest's own file",
        )
    return None


def _script_reason(script: str) -> tuple[str, str] | None:
    """Return why a disk that `script` attaches keeps the guest from moving, and a hint; None if it does not."""
    if "/" in script and os.path.dirname(script) != SCRIPTS:
        return f"the script {script} attaches it, which is not in {SCRIPTS}", f"put the script into {SCRIPTS}"
    return None


def _image_reason(disk: Disk, configured: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return why the content of a disk cannot be moved, and a hint; None if it can."""
    image = _text(configured, "format") or disk.format
    if QEMU.get(image, image) != disk.format or disk.format not in LIBXL:
        other = image if disk.format == "raw" else disk.format
        return (
            f"its format is {other}",
            "convert it (qemu-img convert -O raw OLD NEW), and give the guest format=raw",
        )
    if not disk.path.startswith("/"):
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
        raise PeerError(f"xl's configuration has a {key} that is not text")
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
    """Return the disk at a node of libxl's; None if it was detached meanwhile."""

    def read(key: str) -> str:
        return store.read(f"{at}/{key}") or ""

    backend = read("backend")
    match = re.fullmatch(r"/local/domain/(\d+)/backend/(\w+)/\d+/\d+", backend)
    if match is None:
        return None
    params, kind, script = read("params"), match[2], read("script")
    standard = os.path.basename(script) in ("", "block")  # another one has words of its own in params
    image = params.partition(":")[0] if kind == "qdisk" and ":" in params else "raw"
    return Disk(
        device=read("dev"),
        path=plain_path(params) if standard or kind == "qdisk" else params,
        writable=read("mode") == "w",
        backend=kind,
        type=read("type"),
        format="raw" if image == "aio" else QEMU.get(image, image),  # aio is libxl's name for a raw file here
        script=script,
        cdrom=read("device-type") == "cdrom",
        backend_domid=int(match[1]),
        physical=_physical(store.read(f"{backend}/physical-device") or ""),
    )


def _physical(text: str) -> tuple[int, int] | None:
    match = re.fullmatch("([0-9a-f]{1,3}):([0-9a-f]{1,5})", text)
    return (int(match[1], 16), int(match[2], 16)) if match else None
