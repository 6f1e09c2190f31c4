"""The type of guest that a Xen can migrate: PV where it can, PVH elsewhere. (HVM where it can PVH.)

A live migration needs log-dirty mode, in which Xen records which pages the guest writes. For PV guests that is the
work of shadow paging (CONFIG_SHADOW_PAGING), which Debian leaves out of its newer packages: `xl migrate` then says
"Failed to enable logdirty". PVH guests need hardware virtualisation, and shadow paging or hardware-assisted paging
(hap), which is always built in with CONFIG_HVM.

The same words describe a Xen in both places where it can be asked, its package and the running host: those of
`virt_caps` in `xl info` (pv hvm hap shadow). Source: Xen, xen/arch/x86/sysctl.c (arch_do_physinfo), sets `shadow`
exactly if CONFIG_SHADOW_PAGING is set.
"""

from __future__ import annotations

from collections.abc import Set
from enum import StrEnum

#: Why a Xen whose guests are PVH has no PV guests.
NO_PV = "this Xen is built without shadow paging, so it cannot migrate PV guests"
_BUILT_IN = {"CONFIG_PV": {"pv"}, "CONFIG_HVM": {"hvm", "hap"}, "CONFIG_SHADOW_PAGING": {"shadow"}}


class GuestType(StrEnum):
    """A type of guest; the values are those of `type` in a configuration for xl."""

    PV = "pv"
    PVH = "pvh"
    HVM = "hvm"


def built_in(config: str) -> frozenset[str]:
    """Return the capabilities of a Xen whose build configuration (/boot/xen-*.config) is `config`. A host without
    hardware virtualisation has no hvm and no hap, whatever was built in."""
    found: set[str] = set()
    for line in config.splitlines():
        name, _, value = line.partition("=")
        if value == "y":
            found |= _BUILT_IN.get(name, set())
    return frozenset(found)


def migratable(capabilities: Set[str]) -> GuestType | None:
    """Return the type of guest to use on a Xen with these capabilities; None if it can migrate neither."""
    if capabilities >= {"pv", "shadow"}:
        return GuestType.PV
    if "hvm" in capabilities and capabilities & {"hap", "shadow"}:
        return GuestType.PVH
    return None
