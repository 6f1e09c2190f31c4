"""What stands where, the same for all providers: two Xen hosts, each at a site of its own, and a router between.

    host-a 10.71.1.10 ---- site-a ---- 10.71.1.1 router 10.71.2.1 ---- site-b ---- 10.71.2.10 host-b

Delay, rate and loss are the router's; IPsec (transport mode) is between the hosts. How a lab is reached from
outside (ssh, a console) is the provider's business and no part of this.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PREFIX = 24


class Role(StrEnum):
    """What a machine is for."""

    XENHOST = "xenhost"
    ROUTER = "router"


@dataclass(frozen=True)
class Nic:
    """A machine's place on a network. `address` without prefix length; `mac` also tells the machine which of its
    devices this is."""

    network: str
    address: str
    mac: str


@dataclass(frozen=True)
class Machine:
    """`memory` in MiB. `routes`: (network, gateway), to be set on it."""

    name: str
    role: Role
    nics: tuple[Nic, ...]
    memory: int
    routes: tuple[tuple[str, str], ...] = ()

    def nic(self, network: str) -> Nic:
        """Its place on `network`. Raises KeyError."""
        for nic in self.nics:
            if nic.network == network:
                return nic
        raise KeyError(network)


SITE_A, SITE_B = "site-a", "site-b"
#: network name: its range.
NETWORKS = {SITE_A: f"10.71.1.0/{PREFIX}", SITE_B: f"10.71.2.0/{PREFIX}"}

HOST_A = Machine(
    "host-a",
    Role.XENHOST,
    (Nic(SITE_A, "10.71.1.10", "52:54:00:71:01:10"),),
    2048,
    ((NETWORKS[SITE_B], "10.71.1.1"),),
)
HOST_B = Machine(
    "host-b",
    Role.XENHOST,
    (Nic(SITE_B, "10.71.2.10", "52:54:00:71:02:10"),),
    2048,
    ((NETWORKS[SITE_A], "10.71.2.1"),),
)
ROUTER = Machine(
    "router",
    Role.ROUTER,
    (Nic(SITE_A, "10.71.1.1", "52:54:00:71:01:01"), Nic(SITE_B, "10.71.2.1", "52:54:00:71:02:01")),
    384,
)

HOSTS = (HOST_A, HOST_B)
MACHINES = (ROUTER, HOST_A, HOST_B)
_BY_NAME = {each.name: each for each in MACHINES}


def machine(name: str) -> Machine:
    """The machine of that name. Raises KeyError."""
    return _BY_NAME[name]


def address(name: str) -> str:
    """The address of host `name` that the other host reaches it by."""
    return machine(name).nics[0].address
