"""What a host is asked about a guest that may move, and what it answers: plain values, as one line of JSON each.

The far host reads a request from the network, the near one an answer: both are read strictly (strict_fields).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from xenplugin.geometry import MAX_IMAGE
from xenplugin.xen.cpu_policy import CpuPolicy
from xenplugin.xen.host_info import XenInfo

#: The types of guests.
KINDS = ("pv", "pvh", "hvm")
#: Most bytes of a request and of an answer.
LONGEST = 1 << 20
#: The line that asks the far side to keep the login open.
HOLD = b"hold"


@dataclass(frozen=True)
class WantedFile:
    """A file that the guest needs on its host. `what`: what it is, for messages; `at_start`: only when the guest is
    started again; `either`: the setting `paths` applies to it if there is a file under that path; `elsewhere`: the
    far host may have it under another path, and find it; `package`: it is a program, which is looked for by its
    name, of this package in Debian."""

    path: str
    what: str
    at_start: bool
    elsewhere: bool = False
    either: bool = False
    package: str = ""


@dataclass(frozen=True)
class WantedBridge:
    """What a network interface is attached to: `script` is the hotplug script, an absolute path."""

    bridge: str
    script: str


@dataclass(frozen=True)
class WantedDisk:
    """A disk whose content the far host needs. `size` in bytes; `data`: bytes that it takes at most on the far
    host, None if unknown; `format`: how it is stored, as image.formats.kinds.Format.as_json gives it; `shared`: its
    names that are the same on every host (image.safety.shared_storage); `writable`: the guest may write to it;
    `declared`: both hosts share it, as the administrator says; `cd`: it is a CD image, and `sample` what
    image.source.content_sample returns for it ("": it cannot be read)."""

    device: str
    path: str
    size: int
    data: int | None
    format: dict[str, Any]
    shared: dict[str, Any]
    writable: bool = True
    declared: bool = False
    cd: bool = False
    sample: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for a size that no image has."""
        if not 0 <= self.size <= MAX_IMAGE:
            raise ValueError(f"a disk cannot have {self.size} bytes")


@dataclass(frozen=True)
class SurveyRequest:
    """A guest that may move, as a host is asked about it. `kind`: one of KINDS; `domid`: its domain on the host
    that is asked, 0 on the far host; `source` and `source_domid`: the machine that it is on (host_identity), "" if
    unknown, and its domain there, because both hosts may be one; `vcpus`: its virtual CPUs; `local`: listen on this
    machine only."""

    name: str
    uuid: str
    kind: str
    domid: int
    source: str
    source_domid: int
    vcpus: int
    files: tuple[WantedFile, ...]
    bridges: tuple[WantedBridge, ...]
    disks: tuple[WantedDisk, ...]
    local: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a kind of guest that there is not."""
        if self.kind not in KINDS:
            raise ValueError(f"the type {self.kind!r} is not one of {', '.join(KINDS)}")


@dataclass(frozen=True)
class Unusable:
    """Why something cannot be used, and what to do."""

    text: str
    hint: str = ""


@dataclass(frozen=True)
class FoundDisk:
    """A disk's target. `path`: with the setting `paths` applied; `device`: it is a block device; `size`: bytes of
    what is there, None if nothing is; `aside`: the old disk that is the base of the difference, "" if there is
    none; `free`: bytes of the file system, None for a device; `file_system`: its number; `unsure`: whether both
    hosts share it cannot be known; `stays`: it is there already, and not a target: SHARED or CD of migrate.records,
    else ""; `unusable`: why it cannot be the target."""

    path: str
    device: bool = False
    size: int | None = None
    aside: str = ""
    free: int | None = None
    file_system: int = 0
    unsure: bool = False
    stays: str = ""
    unusable: Unusable | None = None


@dataclass(frozen=True)
class XenFacts:
    """Xen on a host. `policy`: the CPU of the domain, or where it is not, the most that a guest of its kind can
    have; None if unknown; `policy_why`: why then; `dom0`: KiB of dom0's memory, None if unknown; `takes_from_dom0`:
    xl takes memory from dom0 for a guest."""

    info: XenInfo
    policy: CpuPolicy | None
    policy_why: str
    dom0: int | None
    takes_from_dom0: bool


@dataclass(frozen=True)
class HostFacts:
    """A host's answer. `version`: of xenplugin; `clock`: seconds of the epoch at the time of the answer; `xen`:
    None if unknown, and why then in `xen_why`; `state`: the state of the domain, as the six letters of xl list, ""
    if there is none; `suspends`: the guest offers to be suspended, None if unknown; `taken`: why name and uuid are
    not free; `migrating`: why the guest cannot be moved or received now; `missing`: paths of files that are not
    there; `no_bridge`, `no_script`: what lacks of those; `disks`: one for each in the request; `state_free`: bytes
    for the state directory, None if unknown; `state_unusable`: why it cannot be written."""

    version: str
    clock: float
    xen: XenFacts | None
    xen_why: str
    state: str
    suspends: bool | None
    taken: tuple[Unusable, ...]
    migrating: Unusable | None
    missing: tuple[str, ...]
    no_bridge: tuple[str, ...]
    no_script: tuple[str, ...]
    disks: tuple[FoundDisk, ...]
    state_free: int | None
    state_unusable: Unusable | None


@dataclass(frozen=True)
class Listening:
    """Where the far host receives data for the moment: `port` is 0 if nowhere; `wanted`: its setting `ports` names
    any port."""

    port: int
    addresses: tuple[str, ...]
    wanted: bool

    def __post_init__(self) -> None:
        """Raises ValueError for what is no port or no address."""
        if not 0 <= self.port <= 65535:
            raise ValueError(f"{self.port} is not a port")
        for address in self.addresses:  # a name would be looked up
            ipaddress.ip_address(address)
