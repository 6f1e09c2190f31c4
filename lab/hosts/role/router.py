"""Sets the router's link, by netem on its two site devices (Linux) or by Dummynet (FreeBSD), and measures it."""

from __future__ import annotations

import re

from lab.errors import CheckError, LabError
from lab.hosts.interface import Node, Provider, Shaper
from lab.hosts.role import freebsd, tcp_check
from lab.hosts.topology import HOST_A, HOST_B, NETWORKS, ROUTER, SITE_A, SITE_B, address
from netem import dummynet
from netem.dummynet import Dummynet
from netem.errors import NetemError
from netem.profile import Profile
from netem.tc import Tc

_PINGS = 5
_TRIES = 3

# What shows the cause: of a round trip that is too short, of packets that do not pass, of TCP that does not pass.
# A lab of namespaces has no router to log in to.
_LINK_HINTS = {
    Shaper.NETEM: "xenlab ssh router tc -s qdisc",
    Shaper.DUMMYNET: "xenlab ssh router ipfw pipe show",
    Shaper.EMULATOR: "xenlab down, then xenlab up",
}
_PATH_HINTS = {
    Shaper.NETEM: "xenlab ssh host-a ping router",
    Shaper.DUMMYNET: "xenlab ssh router ipfw -a list, to see which rule the packets match",
    Shaper.EMULATOR: "xenlab ssh host-a ip route",
}
_TCP_HINTS = {
    Shaper.NETEM: "xenlab ssh router tcpdump -n -v tcp, to see which packets leave and whether their checksums fit",
    Shaper.DUMMYNET: "xenlab ssh router ifconfig: no device at a site may have RXCSUM, TXCSUM, TSO4, TSO6 or LRO",
    Shaper.EMULATOR: "xenlab ssh host-b tcpdump -n -v tcp, to see which packets arrive",
}

# Prints the devices with the given addresses, and removes an old link from each. Packets are not merged by
# offloading, because netem would count several as one. $@: MAC addresses.
_LINUX = """
sysctl -q -w net.ipv4.ip_forward=1 net.core.netdev_max_backlog=10000 || exit 1
for mac; do
    found=
    for device in /sys/class/net/*; do
        [ "$(cat "$device/address")" != "$mac" ] || found=${device##*/}
    done
    [ -n "$found" ] || { echo "no device has the address $mac" >&2; exit 1; }
    tc qdisc del dev "$found" root 2>/dev/null || :
    ip link set dev "$found" txqueuelen 10000
    for feature in gro gso tso; do ethtool -K "$found" $feature off >/dev/null 2>&1 || :; done
    echo "$found"
done
"""


def apply(node: Node, profile: Profile) -> list[str]:
    """Set the link on a Linux router, in place of an earlier one. Returns in which ways it differs from `profile`,
    one sentence each. Raises LabError."""
    devices = node.check(["sh", "-c", _LINUX, "router", *(nic.mac for nic in ROUTER.nics)]).split()
    try:
        notes = Tc(devices, node.run).apply(profile)
    except NetemError as error:
        raise LabError(f"{node.name}: {error.message}", hint=error.hint) from None
    return [note for note in notes if "ethtool" not in note]  # that has been done above


def apply_freebsd(node: Node, profile: Profile) -> list[str]:
    """Set the link, as `apply` does, on a FreeBSD router that has its addresses (lab.hosts.role.freebsd)."""
    link = Dummynet(node.run)
    try:
        link.undo(missing_ok=True)
        return link.apply(dummynet.Router(NETWORKS[SITE_A], NETWORKS[SITE_B]), profile)
    except NetemError as error:
        raise LabError(f"{node.name}: {error.message}", hint=error.hint) from None


def measure(provider: Provider) -> float:
    """Return the round-trip time from host-a to host-b in seconds, the lowest of several pings. Raises CheckError
    if there is no answer, or if it comes sooner than the link allows."""
    node, asked = provider.nodes()[HOST_A.name], provider.spec.link.rtt
    wait = max(asked * 3, 5)  # seconds for one answer
    words = ["ping", "-n", "-q", "-c", str(_PINGS), "-i", "0.3", "-W", f"{wait:.0f}", address(HOST_B.name)]
    error = ""
    for _ in range(_TRIES):
        done = node.run(words, timeout=60 + _PINGS + wait)
        found = re.search(r"min/avg/max\S* = ([0-9.]+)/", done.stdout)
        if found:
            measured = float(found[1]) / 1000
            if measured < asked - _tolerance(provider):
                raise CheckError(
                    f"a round trip takes only {measured * 1000:.1f} ms, but {asked * 1000:g} ms were requested",
                    hint=_LINK_HINTS[provider.shaper],
                )
            return measured
        error = done.error_text
    raise CheckError(f"host-b does not answer to host-a: {error}", hint=_PATH_HINTS[provider.shaper])


def check_tcp(provider: Provider) -> None:
    """Check that TCP passes from host-a to host-b and back. Raises CheckError, CommandError."""
    nodes, there = provider.nodes(), address(HOST_B.name)
    tcp_check.check(nodes[HOST_A.name], nodes[HOST_B.name], there, provider.spec.link, _TCP_HINTS[provider.shaper])


def _tolerance(provider: Provider) -> float:
    """Return by how many seconds a round trip may be shorter than requested: a tenth; Dummynet also loses up to one
    tick of the clock in each direction."""
    ticks = 2 / int(freebsd.TUNABLES["kern.hz"]) if provider.shaper is Shaper.DUMMYNET else 0.0
    return max(provider.spec.link.rtt * 0.1, ticks)
