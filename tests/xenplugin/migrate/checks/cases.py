"""A move that every check lets pass, to be changed by the tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from xenplugin import __version__
from xenplugin.migrate.checks.ask import FarAnswer, Reached
from xenplugin.migrate.checks.candidate import Candidate
from xenplugin.migrate.checks.case import Case
from xenplugin.migrate.checks.facts import (
    FoundDisk,
    HostFacts,
    Listening,
    SurveyRequest,
    WantedBridge,
    WantedDisk,
    WantedFile,
    XenFacts,
)
from xenplugin.xen.cpu_policy import CpuPolicy
from xenplugin.xen.host_info import XenInfo

UUID = "5c5b1ad0-4f16-4a3c-9d1e-000000000001"
GIB = 1 << 30
INTEL = CpuPolicy(((0, 0xFFFFFFFF, 0xD, 0x756E6547, 0x6C65746E, 0x49656E69), (7, 0, 0, 0x20, 0, 0)), 1 << 31)
AMD = CpuPolicy(((0, 0xFFFFFFFF, 0xD, 0x68747541, 0x444D4163, 0x69746E65),), 1 << 31)
INFO = XenInfo(4, 17, ".5", ("pv", "hvm", "hap", "shadow"), 4 << 20, 8 << 20, 4, "dom0_mem=1G")
XEN = XenFacts(INFO, INTEL, "", 1 << 20, False)
SCRIPT = WantedFile("/etc/xen/scripts/block-iscsi", "the script that attaches xvdc", at_start=False)
TOOL = WantedFile("iscsiadm", "which block-iscsi needs for xvdc", at_start=False, package="open-iscsi")
KERNEL = WantedFile("/srv/vmlinuz", "its kernel", at_start=True)
MODEL = WantedFile("/usr/libexec/qemu", "the device model (QEMU)", at_start=False, elsewhere=True)
BRIDGE = WantedBridge("xenbr0", "/etc/xen/scripts/vif-bridge")
DISK = WantedDisk(
    "xvda",
    "/srv/g1.img",
    4 * GIB,
    GIB,
    {"name": "raw", "options": {}},
    {"own": ["file x"], "below": [], "device": False, "markers": [["m", "g1.img", 7]]},
)
FOUND = FoundDisk("/srv/g1.img", False, None, "", 20 * GIB, 64769)
GUEST = Candidate(
    "g1", UUID, "pv", 2, 262144, 260000, 260000, False, False, (), (SCRIPT, TOOL, KERNEL, MODEL), (BRIDGE,)
)
REQUEST = SurveyRequest("g1", UUID, "pv", 0, "", 7, 2, GUEST.files, GUEST.bridges, (DISK,))
FACTS = HostFacts(__version__, 1e9, XEN, "", "-b----", True, (), None, (), (), (), (FOUND,), 10 * GIB, None)
REACHED = Reached(Listening(49300, ("192.0.2.7",), True), ("192.0.2.7",), "192.0.2.7", 0.04)
CASE = Case(GUEST, REQUEST, replace(FACTS, disks=()), FarAnswer(FACTS, REACHED, 0.0), "hostb")


def near(**values: Any) -> Case:
    """The case with other facts of this host."""
    return replace(CASE, near=replace(CASE.near, **values))


def far(**values: Any) -> Case:
    """The case with other facts of the far host."""
    return replace(CASE, far=replace(CASE.far, facts=replace(FACTS, **values)))


def guest(**values: Any) -> Case:
    """The case with another guest."""
    return replace(CASE, guest=replace(GUEST, **values))


def answer(**values: Any) -> Case:
    """The case with another far answer."""
    return replace(CASE, far=replace(CASE.far, **values))


def xen(policy: CpuPolicy | None = INTEL, policy_why: str = "", dom0: int | None = 1 << 20,
        takes_from_dom0: bool = False, **info: Any) -> XenFacts:  # fmt: skip
    """Other facts of Xen."""
    return XenFacts(replace(INFO, **info), policy, policy_why, dom0, takes_from_dom0)
