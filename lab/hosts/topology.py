"""The machines and networks of a lab: two Xen hosts, each at its own site, and a router between the sites.

    host-a 10.71.1.10 ---- site-a ---- 10.71.1.1 router 10.71.2.1 ---- site-b ---- 10.71.2.10 host-b

All providers use the same topology. The router adds delay, loss and a rate limit; IPsec is between the hosts. The
way in from outside (ssh, a console) is the provider's and is not described here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PREFIX = 24


class Role(StrEnum):
    """The purpose of a machine."""

    XENHOST = "xenhost"
    ROUTER = "router"


@dataclass(frozen=True)
class Nic:
    """A machine's network interface. `address` has no prefix length. The machine finds the device by its `mac`."""

    network: str
    address: str
    mac: str


@dataclass(frozen=True)
class Machine:
    """A machine of the lab. `memory` is in MiB; `routes` are pairs of network and gateway to be set on it."""

    name: str
    role: Role
    nics: tuple[Nic, ...]
    memory: int
    routes: tuple[tuple[str, str], ...] = ()

    def nic(self, network: str) -> Nic:
        """Return its interface on `network`. Raises KeyError."""
        for nic in self.nics:
            if nic.network == network:
                return nic
        raise KeyError(network)


SITE_A, SITE_B = "site-a", "site-b"
#: Network name -> its address range.
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
    """Return the machine of that name. Raises KeyError."""
    return _BY_NAME[name]


def address(name: str) -> str:
    """Return the address by which the other host reaches host `name`."""
    return machine(name).nics[0].address
