"""The existing way: `xl migrate` over one TCP connection, which IPsec encrypts or nothing does.

The disk is not moved: it is on both hosts already.
"""

from __future__ import annotations

from lab.hosts.spec import Suite
from lab.measure.hosts import Hosts
from lab.measure.way import Family, Style, Way


def _run(hosts: Hosts) -> None:
    with hosts.tcp() as shell, hosts.measured():
        hosts.run(["xl", "migrate", "-s", shell, hosts.guest, hosts.far])
    hosts.check_guest()


WAYS = (
    Way(
        "existing",
        "existing (IPsec)",
        Family.XL,
        10,
        Style("#333333", "#d6d6d6", (), "s", 2.2),
        _run,
        disk=False,
        memory=True,
        ipsec=Suite.PAPER,
    ),
    Way(
        "existing-gcm",
        "existing (IPsec, AES-GCM)",
        Family.XL,
        20,
        Style("#777777", "#9a9a9a", (8, 3), "D"),
        _run,
        disk=False,
        memory=True,
        ipsec=Suite.TODAY,
    ),
    Way(
        "plain",
        "xl migrate, unprotected",
        Family.XL,
        30,
        Style("#a06a00", "#e69f00", (2, 3), "x"),
        _run,
        disk=False,
        memory=True,
    ),
)
