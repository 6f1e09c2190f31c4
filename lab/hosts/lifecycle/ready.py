"""Checks that the hosts are ready: Xen answers, both have the same version and can migrate guests, and their CPUs
compute correctly."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from lab.errors import CheckError
from lab.hosts.guest.guest_type import NO_PV, GuestType
from lab.hosts.interface import Node, Provider, Say
from lab.hosts.role import xenhost
from lab.hosts.role.xenhost import XenInfo
from lab.hosts.topology import HOSTS
from lab.progress import Moving


def check(provider: Provider, say: Say) -> None:
    """Check both hosts in parallel; do nothing if they have no Xen. Raises CheckError, CommandError."""
    if not provider.abilities.xen:
        return
    nodes = provider.nodes()

    def one(node: Node) -> XenInfo:
        info = xenhost.answering(node)
        say(f"{node.name}: Xen {info.version} ({info.caps})")
        if info.guests is None:
            raise CheckError(
                f"{node.name}: {NO_PV}, and its CPU has no hardware virtualisation, which PVH guests need",
                hint="turn on nested virtualisation (option nested=1 of kvm_intel, kvm_amd; docs/vagrant.md)",
            )
        if info.guests is not GuestType.PV:
            say(f"note: {node.name}: {NO_PV}; use PVH guests")
        say(Moving(node.name, "testing its CPU: AES and Ed25519 while a guest runs"))
        computes = xenhost.check_arithmetic(node)
        say(Moving(node.name, ""))
        if computes:
            say(f"{node.name}: its CPU computes correctly while a guest runs")
        return info

    with ThreadPoolExecutor(len(HOSTS)) as pool:
        found = list(pool.map(one, [nodes[host.name] for host in HOSTS]))
    if len({info.version for info in found}) > 1:
        versions = ", ".join(f"{host.name} {info.version}" for host, info in zip(HOSTS, found, strict=True))
        raise CheckError(f"the hosts run different versions of Xen: {versions}")
    if not found[0].version.startswith(provider.spec.xen.value):
        raise CheckError(f"the hosts run Xen {found[0].version}, but {provider.spec.xen} was requested")
