"""Whether this kind of guest can be migrated at all, as it is now."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from xenplugin.migrate.checks.case import Case
from xenplugin.migrate.checks.facts import Unusable
from xenplugin.migrate.checks.rules.result import passes, refuses, warns
from xenplugin.results import CheckResult
from xenplugin.xen.host_info import XenInfo

_KINDS = {"pv": "PV", "pvh": "PVH", "hvm": "HVM"}
#: The first Xen whose virt_caps tell hap and shadow.
_TELLS = (4, 14)


def state(case: Case) -> Iterator[CheckResult]:
    """Whether the guest runs: one that stands still does not answer a request to suspend itself."""
    name, letters = case.guest.name, case.near.state
    if not letters:
        yield warns("guest-state", f"it is not known whether {name} runs: xl does not list it")
    elif letters[5] == "d" or letters[3] == "s":
        what = "is being destroyed" if letters[5] == "d" else "has shut down, crashed or is suspended"
        yield refuses("guest-state", f"{name} {what}", "xl list shows its state; start it again, or let it end")
    elif letters[2] == "p":
        yield warns(
            "guest-state",
            f"{name} is paused, so it may not answer when it is to be suspended",
            f"xl unpause {shlex.quote(name)}",
        )
    else:
        yield passes("guest-state", f"{name} runs")


def nomigrate(case: Case) -> Iterator[CheckResult]:
    """Whether its configuration forbids a migration (nomigrate)."""
    if case.guest.nomigrate:
        yield refuses(
            "nomigrate",
            f"the configuration of {case.guest.name} says nomigrate=1: it may rely on this host's clock (TSC)",
            "if it shall move nevertheless: xenplugin migrate --force nomigrate",
            forcible=True,
        )
    else:
        yield passes("nomigrate", "its configuration allows it")


def guest_type(case: Case) -> Iterator[CheckResult]:
    """Whether both Xen can migrate this type of guest."""
    kind, name = case.guest.kind, _KINDS[case.guest.kind]
    near, far = case.near.xen, case.far.facts.xen
    if near is None:
        pass  # `xen_version` says it
    elif (near.info.major, near.info.minor) < _TELLS:
        yield warns("guest-type", f"Xen {near.info.version} does not tell whether it migrates {name} guests")
    elif kind == "pv" and "shadow" not in near.info.caps:
        yield refuses(
            "guest-type",
            f"Xen {near.info.version} on this host is built without shadow paging, so it cannot migrate PV guests",
            "xl info shows it in virt_caps; make it a PVH guest (type=\"pvh\"), or use a Xen with shadow paging",
        )  # fmt: skip
    else:
        yield passes("guest-type", f"{name}: Xen {near.info.version} here can migrate it")
    if far is None:
        return  # `xen_version` says it
    if lacks := _lacks(far.info, kind, case.guest.hap):
        yield refuses(
            "guest-type",
            f"Xen on {case.host} cannot run {name} guests: it has no {lacks}",
            f"xl info there shows it in virt_caps: {' '.join(far.info.caps) or 'none'}",
        )
    elif kind == "pv" and "shadow" not in far.info.caps and (far.info.major, far.info.minor) >= _TELLS:
        yield warns(
            "guest-type",
            f"Xen on {case.host} is built without shadow paging: {case.guest.name} cannot move on from there",
            "the way back will be by xl save and restore, or by a restart",
        )


def _lacks(info: XenInfo, kind: str, hap: bool) -> str:
    """Return what a host lacks to run this kind of guest; "" if nothing."""
    if kind == "pv":
        return "" if "pv" in info.caps else "PV support"
    if "hvm" not in info.caps:
        return "hardware virtualisation"
    if (info.major, info.minor) < _TELLS or "hap" in info.caps or (not hap and "shadow" in info.caps):
        return ""
    return "hardware-assisted paging" if hap else "shadow paging"


def suspend(case: Case) -> Iterator[CheckResult]:
    """Whether the guest offers to be suspended, which the last step of a migration needs."""
    if case.guest.kind == "hvm":  # without drivers for Xen, Xen itself suspends it
        yield passes("suspend", "HVM: Xen can suspend it")
    elif case.near.suspends:
        yield passes("suspend", "the guest offers to be suspended")
    elif case.near.suspends is not None:  # else xenstore cannot be read, as `name` says
        yield warns(
            "suspend",
            f"{case.guest.name} does not offer to be suspended (control/feature-suspend in xenstore): it may be"
            " about to boot, or cannot migrate",
            "if it cannot, xl gives up after 60 s, and the guest goes on here",
        )


def devices(case: Case) -> Iterator[CheckResult]:
    """Whether the guest has devices that belong to this host."""
    for one in case.guest.staying:
        remove = one.detach or "take it out of the configuration and restart the guest"
        hint = f"{remove}; or move it stopped: xl shutdown, xenplugin copy, xl create"
        yield refuses(
            "devices",
            f"{case.guest.name} cannot take everything along: {one.text}",
            hint if one.sure else f"{hint}; to move it nevertheless: xenplugin migrate --force devices",
            forcible=not one.sure,
        )
    if not case.guest.staying:
        yield passes("devices", "it has no devices that would stay here")


def memory_below_maximum(case: Case) -> Iterator[CheckResult]:
    """Whether the guest's memory is below its maximum: populate on demand, unless its balloon driver works."""
    guest = case.guest
    if guest.kind != "pv" and guest.memory < guest.most_memory:
        yield warns(
            "memory-below-maximum",
            f"{guest.name} has {guest.memory // 1024} MiB of at most {guest.most_memory // 1024} MiB: if its"
            " balloon driver does not work (populate on demand), it may crash on the far host",
            f"to exclude that, before the move: xl mem-set {shlex.quote(guest.name)} {guest.most_memory // 1024}",
        )
    else:
        yield passes("memory-below-maximum", "it has all the memory that it may use")


def migrating(case: Case) -> Iterator[CheckResult]:
    """Whether another migration of the guest runs on either host, or may run."""
    found = [(where, one) for where, one in _migrations(case) if one is not None]
    for where, one in found:
        yield refuses("migrating", f"{where}: {one.text}", one.hint)
    if not found:
        yield passes("migrating", "no other migration of it runs")


def _migrations(case: Case) -> Iterator[tuple[str, Unusable | None]]:
    yield "this host", case.near.migrating
    yield case.host, case.far.facts.migrating
