"""Sets the router's link, by netem on its two site devices (Linux) or by Dummynet (FreeBSD), and measures it."""

from __future__ import annotations

import re

from lab.errors import CheckError, LabError
from lab.hosts.interface import Node, Provider
from lab.hosts.topology import HOST_A, HOST_B, NETWORKS, PREFIX, ROUTER, SITE_A, SITE_B, address
from netem import dummynet
from netem.dummynet import Dummynet
from netem.errors import NetemError
from netem.profile import Profile
from netem.tc import Tc

_PINGS = 5
_TRIES = 3

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

# Gives devices their addresses. $@: pairs of MAC address and IP address.
_FREEBSD = """
sysctl net.inet.ip.forwarding=1 >/dev/null || exit 1
while [ $# -gt 0 ]; do
    found=
    for device in $(ifconfig -l ether); do
        ! ifconfig "$device" | grep -qi "ether $1" || found=$device
    done
    [ -n "$found" ] || { echo "no device has the address $1" >&2; exit 1; }
    ifconfig "$found" inet "$2" -lro -tso up || exit 1
    shift 2
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
    """Set the link, as `apply` does, on a FreeBSD router that has its addresses (`address_freebsd`)."""
    link = Dummynet(node.run)
    try:
        link.undo(missing_ok=True)
        return link.apply(dummynet.Router(NETWORKS[SITE_A], NETWORKS[SITE_B]), profile)
    except NetemError as error:
        raise LabError(f"{node.name}: {error.message}", hint=error.hint) from None


def address_freebsd(node: Node) -> None:
    """Give a FreeBSD router its addresses at the sites. Raises CommandError."""
    words = [word for nic in ROUTER.nics for word in (nic.mac, f"{nic.address}/{PREFIX}")]
    node.check(["sh", "-c", _FREEBSD, "router", *words])


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
            if measured < asked * 0.9:
                raise CheckError(
                    f"a round trip takes only {measured * 1000:.1f} ms, but {asked * 1000:g} ms were requested",
                    hint="xenlab ssh router tc -s qdisc",
                )
            return measured
        error = done.error_text
    raise CheckError(f"host-b does not answer to host-a: {error}", hint="xenlab ssh host-a ping router")
