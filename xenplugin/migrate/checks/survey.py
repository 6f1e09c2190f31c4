"""Gathers what a host is asked about a guest that may move: on both hosts, by the same code.

Nothing is changed. What takes time (xl, xen-cpuid) begins at once, before the request is known, side by side; each
answer that cannot be had is reported as unknown with the reason, and never as a pass.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from xenplugin import __version__
from xenplugin.config import Config
from xenplugin.errors import ConfigError, ImageError, PeerError, RefusedError, XenpluginError
from xenplugin.image import state_folder
from xenplugin.image.formats import installed
from xenplugin.image.formats.kinds import Format
from xenplugin.image.safety.shared_storage import Sharing
from xenplugin.image.target import dry_run
from xenplugin.image.target.room import free_bytes
from xenplugin.migrate import arriving_disks
from xenplugin.migrate.checks.facts import (
    FoundDisk,
    HostFacts,
    SurveyRequest,
    Unusable,
    WantedBridge,
    WantedDisk,
    XenFacts,
)
from xenplugin.migrate.ownership import host_identity, records
from xenplugin.migrate.ownership.claims import Claims
from xenplugin.migrate.ownership.records import CD, SHARED, Record
from xenplugin.migrate.ownership.states import COPY_HINT, FINAL, OwnershipState, Role
from xenplugin.xen import xen_tools
from xenplugin.xen.attached import attached
from xenplugin.xen.cpu_policy import CpuPolicy
from xenplugin.xen.disk_formats import is_device, usable
from xenplugin.xen.host_info import XenInfo
from xenplugin.xen.xenstore import Store
from xenplugin.xen.xl import AWAY, INCOMING, QUESTION, XlCommand

T = TypeVar("T")
SYS_NET = Path("/sys/class/net")
#: Where Xen's scripts find their programs; a login by ssh may have a shorter PATH.
_PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: A guest's kind, and the name of the policy that bounds what its CPU can have.
_BOUND = {"pv": "PV Max", "pvh": "HVM Max", "hvm": "HVM Max"}


class Survey:
    """The gathering of this host's facts; `domid`: the guest's domain if it is here, else 0. A context manager.
    Raises RefusedError if this host has no xl."""

    def __init__(self, config: Config, domid: int) -> None:
        self._config = config
        self._domid = domid
        self._workers = ThreadPoolExecutor(3, thread_name_prefix="survey")
        xl = XlCommand(patience=QUESTION)  # without one, nothing can arrive
        self._info = self._workers.submit(_try, lambda: xen_tools.info(xl))
        words = [str(domid)] if domid else []
        self._policies = self._workers.submit(_try, lambda: xen_tools.policies(*words))
        self._domain = self._workers.submit(_try, lambda: xl.domain(domid) if domid else None)

    def __enter__(self) -> Survey:
        return self

    def __exit__(self, *_: object) -> None:
        self._workers.shutdown(wait=False, cancel_futures=True)

    def answer(self, request: SurveyRequest) -> HostFacts:
        """Return the facts for `request`."""
        own = _own_record(self._config.state_dir, request)
        taken, dom0, suspends = self._from_xenstore(request, own)
        missing = tuple(dict.fromkeys(self._missing(request)))
        here = [replace(each, bridge=self._config.bridge(each.bridge)) for each in request.bridges]
        no_bridge, no_script = _networks(here)
        disks = tuple(_disk(self._config, disk, own) for disk in request.disks)
        info, xen_why = self._info.result()
        domain, _ = self._domain.result()
        return HostFacts(
            version=__version__,
            clock=time.time(),
            xen=self._xen(info, request.kind, dom0) if info is not None else None,
            xen_why=xen_why,
            state=domain.state if domain is not None else "",
            suspends=suspends,
            taken=tuple(taken),
            migrating=_migrating(self._config.state_dir, request, bool(self._domid)),
            missing=missing,
            no_bridge=no_bridge,
            no_script=no_script,
            disks=disks,
            state_free=_free(self._config.state_dir),
            state_unusable=_unwritable(self._config.state_dir),
        )

    def _xen(self, info: XenInfo, kind: str, dom0: int | None) -> XenFacts:
        found, why = self._policies.result()
        policy: CpuPolicy | None = None
        if found is not None:
            name = f"Domain {self._domid}" if self._domid else _BOUND[kind]
            policy = found.get(name)
            why = "" if policy else f"xen-cpuid reports no policy {name}"
        return XenFacts(info, policy, why, dom0, xen_tools.takes_from_dom0(info.command_line))

    def _from_xenstore(
        self, request: SurveyRequest, own: Record | None
    ) -> tuple[list[Unusable], int | None, bool | None]:
        """Return why name and uuid are not free, dom0's memory (KiB), and whether the guest can be suspended."""
        try:
            with Store() as store:
                taken = list(_taken(store, request, own))
                dom0 = store.read("/local/domain/0/memory/target") or ""
                offer = store.read(f"/local/domain/{self._domid}/control/feature-suspend") if self._domid else None
        except XenpluginError as error:
            return [Unusable(f"it is not known which guests are there: {error}", error.hint or "")], None, None
        memory = int(dom0) if re.fullmatch("[0-9]{1,15}", dom0) else None
        return taken, memory, offer == "1" if self._domid else None

    def _missing(self, request: SurveyRequest) -> Iterator[str]:
        """Yield the paths of files that are not on this host, as they are called on it."""
        for file in request.files:
            if file.package:
                if shutil.which(file.path, path=_PROGRAMS) is None:
                    yield file.path
                continue
            paths = [file.path]
            if file.either:
                with suppress(RefusedError):
                    paths.append(self._config.mapped(file.path))
            if not any(map(os.path.exists, paths)):
                yield file.path


def _try(ask: Callable[[], T]) -> tuple[T | None, str]:
    """Return what `ask` returns, or None and why it failed."""
    try:
        return ask(), ""
    except XenpluginError as error:
        return None, error.message


def _own_record(state_dir: Path, request: SurveyRequest) -> Record | None:
    """Return the record of an earlier arrival of the guest that was interrupted. A new one settles it first: what
    is left of it is destroyed, also if it could have run here, because its source has kept the guest."""
    with suppress(XenpluginError):
        for one in records.read_all(state_dir)[0]:
            arrival = one.role is Role.DESTINATION and one.state not in FINAL and one.uuid == request.uuid
            kept = request.source != "" and one.peer.machine == request.source
            if arrival and not one.alive and (one.state is OwnershipState.RECEIVING or kept):
                return one
    return None


def _migrating(state_dir: Path, request: SurveyRequest, here: bool) -> Unusable | None:
    """Return why the guest cannot leave this host (`here`) or arrive at it now, because of another migration."""
    try:
        known, unreadable = records.read_all(state_dir)
    except XenpluginError as error:
        return Unusable(error.message, error.hint or "")
    if unreadable:
        bad = unreadable[0]
        return Unusable(
            f"the record {bad.path} cannot be read ({bad.why}), so it is not known which disks are taken",
            "look for the guest on both hosts (xl list), then remove that file",
        )
    for one in known:
        concerned = one.uuid == request.uuid and (here or one.role is Role.DESTINATION)
        if concerned and one.state not in FINAL and one.alive:  # one that was interrupted is settled first
            return Unusable(f"{one.name} is being migrated already", "wait for that migration, or stop it")
    return None


def _taken(store: Store, request: SurveyRequest, own: Record | None) -> Iterator[Unusable]:
    """Yield why the guest's names or its uuid cannot be used here: another domain has them."""
    here = bool(request.domid)
    # Both hosts may be one: then the guest itself does not count.
    itself = request.source_domid if request.source and request.source == host_identity.here().machine else 0
    names = {request.name + AWAY} if here else {request.name, request.name + INCOMING}
    for domid in store.list("/local/domain"):
        if not domid.isdecimal() or int(domid) in (0, request.domid, itself):
            continue
        name, vm = store.read(f"/local/domain/{domid}/name"), store.read(f"/local/domain/{domid}/vm") or ""
        same = vm.removeprefix("/vm/").lower() == request.uuid
        if (
            own is not None
            and same
            and (own.state is not OwnershipState.RECEIVING or name == request.name + INCOMING)
        ):
            continue  # what is left of that arrival is destroyed before the next
        if same and not here:
            yield Unusable(
                f"there is a domain with the uuid of {request.name} already ({name or 'no name'}, domain {domid})",
                COPY_HINT,
            )
        elif name in names:
            rename = f"rename one of the two: xl rename {shlex.quote(name)} NEW-NAME"
            interim = (
                "run `xenplugin recover` on that host; if it stays, an xl left it behind: look what it is, and "
            )
            hint = rename if name == request.name else f"{interim}{rename}"
            yield Unusable(f"there is a guest {name} already (domain {domid})", hint)


def _networks(wanted: Sequence[WantedBridge]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the bridges and the scripts that this host lacks."""
    bridges, scripts = [], []
    for each in wanted:
        if not os.path.exists(each.script):
            scripts.append(each.script)
        if each.bridge and not _bridge(each):
            bridges.append(each.bridge)
    return tuple(dict.fromkeys(bridges)), tuple(dict.fromkeys(scripts))


def _bridge(wanted: WantedBridge) -> bool:
    # Open vSwitch: BRIDGE[.VLAN][:TRUNKS], and the bridge is no bridge of the kernel's.
    name = re.split("[.:]", wanted.bridge)[0] if "openvswitch" in wanted.script else wanted.bridge
    if not name or "/" in name or name in (".", ".."):
        return False
    device = SYS_NET / name
    return device.exists() if "openvswitch" in wanted.script else (device / "bridge").exists()


def _disk(config: Config, disk: WantedDisk, own: Record | None) -> FoundDisk:
    """Return what is at the place of a disk here."""
    path = disk.path
    try:
        path = config.mapped(path)
        if disk.cd and os.path.lexists(path) and not _is_placeholder(own, path):
            return _cd(config, disk, path)
        return _image(config, disk, path, Claims(config.state_dir, own.id if own is not None else ""))
    except (RefusedError, ImageError, PeerError, ConfigError) as error:
        hint = _volume_hint(path, disk.size) or error.hint or ""
        return FoundDisk(path, unusable=Unusable(error.message, hint))


def _is_placeholder(own: Record | None, path: str) -> bool:
    """Return whether `path` is the empty file of an earlier arrival, which is removed before the next."""
    inodes = [disk.placeholder for disk in own.disks if disk.path == path] if own is not None else []
    there = os.lstat(path)
    return there.st_size == 0 and there.st_ino in inodes


def _cd(config: Config, disk: WantedDisk, path: str) -> FoundDisk:
    """Return whether the CD image at `path` may be the one that is wanted. What is there is never replaced."""
    Claims(config.state_dir).refuse([path], reading=True)
    if disk.sample and arriving_disks.has_sample(path, disk.size, disk.sample):
        return FoundDisk(path, stays=CD)
    raise arriving_disks.another_cd(path)


def _image(config: Config, disk: WantedDisk, path: str, claims: Claims) -> FoundDisk:
    """Return whether the disk is at `path` already, because both hosts share it, or can go there."""

    def user(of: str) -> str | None:
        claims.refuse([of])
        return attached(of)

    known = arriving_disks.sharing(  # first: such a disk is in use as well
        config, path, disk.size, disk.shared, user, declared=disk.declared, writable=disk.writable
    )
    if known is Sharing.SAME:
        return FoundDisk(path, stays=SHARED)
    format = Format()
    if not disk.cd and not is_device(path):
        format = usable(config.stored(Format.of_json(disk.format)))
    if not format.is_raw:
        installed.refuse_missing()
    there = dry_run.examine(
        path,
        disk.size,
        state_dir=config.state_dir,
        attached=user,
        format=format,
        larger_device=config.larger_device,
    )
    return FoundDisk(
        path, there.device, there.size, there.aside, there.free, there.file_system, unsure=known is Sharing.UNSURE
    )


def _volume_hint(path: str, size: int) -> str:
    """Return a hint with the command that makes the volume at `path`, if there is none there; "" otherwise."""
    match = re.fullmatch("/dev/(?!mapper/|disk/|shm/)([A-Za-z0-9+_.-]+)/([A-Za-z0-9+_.-]+)", path)
    return (
        f"make it there: lvcreate -L {size}b -n {match[2]} {match[1]}"
        if match and not os.path.lexists(path)
        else ""
    )


def _unwritable(state_dir: Path) -> Unusable | None:
    """Return why the records of a migration cannot be written."""
    try:
        state_folder.check_writable(state_dir / records.FOLDER)
    except ConfigError as error:
        return Unusable(error.message, error.hint or "")
    return None


def _free(state_dir: Path) -> int | None:
    """Return the bytes that are free for the state directory; None if unknown."""
    for folder in (state_dir, *state_dir.parents):
        with suppress(OSError):
            return free_bytes(folder)
    return None
