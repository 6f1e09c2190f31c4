"""Whether the far host can take the guest."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from xenplugin import __version__
from xenplugin.migrate.checks.case import Case
from xenplugin.migrate.checks.facts import XenFacts
from xenplugin.migrate.checks.rules.result import passes, refuses, warns
from xenplugin.results import CheckResult
from xenplugin.ui import units
from xenplugin.xen import cpu_policy

#: KiB that xl leaves to dom0 at least: LIBXL_MIN_DOM0_MEM.
_LEAST_DOM0 = 128 * 1024
#: Seconds by which two clocks may differ without a word.
_CLOCKS = 5.0
#: Bytes for the records of a migration, and for each MiB of a disk's data (docs/migration.md).
_RECORDS, _PER_MIB = 256 << 10, 512
_NAMED = 8  #: features that a message names


def version(case: Case) -> Iterator[CheckResult]:
    """Whether both sides have the same xenplugin. (Another version of the protocol does not get as far as this.)"""
    there = case.far.facts.version
    if there != __version__:
        yield warns(
            "version",
            f"{case.host} has xenplugin {there}, this host {__version__}; their protocol is the same",
            "install the same version on both hosts",
        )
    else:
        yield passes("version", f"xenplugin {there} on both hosts")


def xen_version(case: Case) -> Iterator[CheckResult]:
    """Whether the far Xen is at least as new: guests move to the same or a newer release. What a host without this
    fact leaves open in other checks is said here, once."""
    near, far = case.near.xen, case.far.facts.xen
    if near is None:
        open_here = "nor whether it can migrate this type of guest, nor which CPU the guest sees"
        yield warns("xen-version", f"this host: its Xen is not known, {open_here}: {case.near.xen_why}")
    if far is None:
        open_there = "nor whether it has the type, CPU features, memory and CPUs for the guest"
        yield warns("xen-version", f"{case.host}: its Xen is not known, {open_there}: {case.far.facts.xen_why}")
    if near is None or far is None:
        return
    text = f"Xen {near.info.version} here, {far.info.version} on {case.host}"
    if (far.info.major, far.info.minor) < (near.info.major, near.info.minor):
        yield refuses(
            "xen-version",
            f"{text}: a guest does not move to an older release of Xen",
            f"upgrade Xen on {case.host}; to try it nevertheless: xenplugin migrate --force xen-version",
            forcible=True,
        )
    else:
        yield passes("xen-version", text)


def cpu(case: Case) -> Iterator[CheckResult]:
    """Whether the far CPU and Xen have all features that the guest sees."""
    near, far = case.near.xen, case.far.facts.xen
    if near is None or far is None:
        return  # `xen_version` says it
    guest, bound = near.policy, far.policy
    if guest is None or bound is None:
        where, why = ("this host", near.policy_why) if guest is None else (case.host, far.policy_why)
        what = f"whether {case.host} has all CPU features that the guest sees"
        yield warns(
            "cpu",
            f"it is not known {what}; on {where}: {why}",
            "compare them by `xen-cpuid -p DOMID` here and `xen-cpuid -p` there",
        )
        return
    hint = (
        "limit what the guest sees with cpuid= in its configuration, and restart it;"
        " to try it nevertheless: xenplugin migrate --force cpu"
    )
    if guest.vendor != bound.vendor:
        text = f"the guest sees a CPU of {guest.vendor}, and {case.host} has one of {bound.vendor}"
        yield refuses("cpu", text, "move it stopped: xl shutdown, xenplugin copy, xl create", forcible=True)
    elif reason := cpu_policy.incompatible(guest, bound):
        yield refuses("cpu", f"Xen on {case.host} refuses the guest's CPU: {reason}", hint, forcible=True)
    elif lacks := cpu_policy.missing(guest, bound):
        more = f" and {len(lacks) - _NAMED} more" if len(lacks) > _NAMED else ""
        named = ", ".join(lacks[:_NAMED]) + more
        text = f"the guest sees CPU features that {case.host} does not have: {named}"
        yield refuses("cpu", text, hint, forcible=True)
    else:
        yield passes("cpu", f"{case.host} has all features that the guest sees")


def memory(case: Case) -> Iterator[CheckResult]:
    """Whether the far host has memory for the guest, with what libxl adds to it."""
    xen = case.far.facts.xen
    needs = units.size(1024 * case.guest.needs)
    if xen is None:
        return  # `xen_version` says it
    free, most = xen.info.free, _most(xen)
    if case.guest.needs <= free:
        yield passes("memory", f"{needs} of {units.size(1024 * free)} free")
    elif case.guest.needs <= most:
        yield warns(
            "memory",
            f"{case.host} has {units.size(1024 * free)} free and {case.guest.name} needs {needs}: xl will take the"
            " rest from dom0 there",
            'to prevent it: autoballoon="off" in xl.conf, and a fixed dom0_mem',
        )
    else:
        yield refuses(
            "memory",
            f"{case.host} has {units.size(1024 * most)} of memory for {case.guest.name}, which needs {needs}",
            "shut down or shrink (xl mem-set) a guest there; if some is about to be free: xenplugin migrate"
            " --force memory",
            forcible=True,
        )


def _most(xen: XenFacts) -> int:
    """Return the KiB that a guest can have: what is free, and what xl takes from dom0."""
    return xen.info.free + (max(0, (xen.dom0 or 0) - _LEAST_DOM0) if xen.takes_from_dom0 else 0)


def vcpus(case: Case) -> Iterator[CheckResult]:
    """Whether the far host has as many CPUs as the guest has virtual ones."""
    xen, count = case.far.facts.xen, case.guest.vcpus
    if xen is None:
        return  # `xen_version` says it
    if count > xen.info.cpus:
        yield warns("vcpus", f"{case.guest.name} has {count} virtual CPUs, {case.host} only {xen.info.cpus} CPUs")
    else:
        yield passes("vcpus", f"{count} of {xen.info.cpus}")


def name(case: Case) -> Iterator[CheckResult]:
    """Whether name and uuid are free on the far host, and the name for what leaves on this one."""
    for one in case.far.facts.taken:
        yield refuses("name", f"{case.host}: {one.text}", one.hint)
    for one in case.near.taken:
        yield refuses("name", f"this host: {one.text}", one.hint)
    if not case.far.facts.taken + case.near.taken:
        yield passes("name", f"{case.guest.name} and its uuid are free on {case.host}")


def bridges(case: Case) -> Iterator[CheckResult]:
    """Whether the far host has the bridges and hotplug scripts of the guest's network interfaces."""
    far = case.far.facts
    for bridge in far.no_bridge:
        yield refuses(
            "bridges",
            f"{case.host} has no bridge {bridge}",
            f"make it there: ip link add {shlex.quote(bridge)} type bridge; to last, in the network configuration",
        )
    for script in far.no_script:
        yield refuses("bridges", f"{case.host} has no network script {script}", "copy it there from this host")
    if not far.no_bridge + far.no_script:
        names = ", ".join(dict.fromkeys(one.bridge or one.script for one in case.guest.bridges))
        yield passes("bridges", f"{names} there as well" if names else "it has no network interface")


def files(case: Case) -> Iterator[CheckResult]:
    """Whether the far host has the files and programs that the guest needs: kernel, firmware, block scripts."""
    lacking = [file for file in case.request.files if file.path in case.far.facts.missing]
    for file in lacking:
        if file.package:
            text = f"{case.host} does not have {file.path}, {file.what}"
            yield refuses("files", text, f"install it there (Debian: {file.package})")
            continue
        text = f"{case.host} does not have {file.what}, {file.path}"
        if file.at_start:
            yield warns("files", f"{text}: it cannot be started again there", "copy it there")
        else:
            hint = "copy it there"
            text += ", without which it cannot start there"
            if file.elsewhere:
                hint = (
                    "install it there (Debian: qemu-system-xen); if it has another path there: xenplugin migrate"
                    " --force files"
                )
            yield refuses("files", text, hint, forcible=file.elsewhere)
    if not lacking:
        count = len(case.request.files)
        yield passes("files", f"{count} file{'s' * (count != 1)} needed, all there" if count else "none needed")


def state_directory(case: Case) -> Iterator[CheckResult]:
    """Whether both hosts can write the records of the migration, and have room for them."""
    data = sum(disk.size if disk.data is None else disk.data for disk, _ in case.moving)
    needs = {"this host": _RECORDS + _PER_MIB * (data >> 20), case.host: _RECORDS}
    facts = {"this host": case.near, case.host: case.far.facts}
    unusable = {where: one.state_unusable for where, one in facts.items() if one.state_unusable is not None}
    for where, why in unusable.items():
        yield refuses("state-directory", f"{where}: {why.text}", why.hint)
    found = {where: one.state_free for where, one in facts.items() if where not in unusable}
    short = [where for where, free in found.items() if free is not None and free < needs[where]]
    for where in short:
        yield refuses(
            "state-directory",
            f"{where} has {units.size(found[where] or 0)} for the state directory, and a migration needs"
            f" {units.size(needs[where])}",
            "free some space on the file system of state_dir",
        )
    for where in [where for where, free in found.items() if free is None]:
        yield warns("state-directory", f"{where}: it is not known whether there is room for the records")
    if not short and None not in found.values() and not unusable:
        yield passes("state-directory", "room for the records on both hosts")


def ports(case: Case) -> Iterator[CheckResult]:
    """Whether data connections can be opened."""
    reached = case.far.reached
    if not reached.listening.wanted:
        yield passes("ports", f"the data goes through ssh, as {case.host} has it (ports = 0)")
    elif not reached.listening.port:
        yield warns(
            "ports", f"{case.host} has no free port: the data goes through ssh", "free one of its setting `ports`"
        )
    elif not reached.address:
        tried = ", ".join(reached.tried) or "no address"
        yield warns(
            "ports",
            f"port {reached.listening.port} of {case.host} cannot be reached ({tried}): the data goes through ssh,"
            " which is slower over long distances",
            "open the range of its setting `ports` in the firewall, or set --address",
        )
    else:
        rtt = f"RTT {1000 * reached.rtt:.1f} ms"
        yield passes("ports", f"port {reached.listening.port} of {reached.address}, {rtt}")


def clock(case: Case) -> Iterator[CheckResult]:
    """Whether the clocks of both hosts agree."""
    ahead = case.far.ahead
    if abs(ahead) > _CLOCKS:
        yield warns(
            "clock",
            f"the clock of {case.host} is {units.seconds(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} this"
            " host's: the guest's time may jump",
            "synchronise both by NTP (timedatectl)",
        )
    else:
        yield passes("clock", "both clocks agree")
