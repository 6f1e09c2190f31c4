"""ESP by the kernel between two real Xen hosts: on and off, and nothing in the clear even when charon ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.hosts.lifecycle.lab import Lab
from lab.hosts.role import ipsec, swan
from lab.hosts.role.capture import recording
from lab.hosts.role.swan_proof import count, prove
from lab.hosts.spec import Auth, Suite
from tests.helpers.labs import change

pytestmark = [pytest.mark.lab, pytest.mark.slow]
A, B = swan.ends("transport")


def crossing(lab: Lab, path: Path, before: str) -> dict[str, int]:
    """Return the packets by kind that cross the router while host-a runs `before` and then tries to reach
    host-b."""
    node = lab.node("host-a")
    with recording(lab.provider, path) as counts:
        node.check(["sh", "-c", before], timeout=120)
        node.run(["ping", "-n", "-q", "-c", "3", "-i", "1", "-W", "3", B.address])
    assert counts.dropped == 0
    return count(path, {A.address}, {B.address})


def test_only_esp_crosses_whatever_becomes_of_charon(xen_lab: Lab, tmp_path: Path) -> None:
    for suite, auth in ((Suite.PAPER, Auth.CERT), (Suite.TODAY, Auth.PSK)):
        change(xen_lab, ipsec=suite, auth=auth)
        for host in ("host-a", "host-b"):
            found = ipsec.associations(xen_lab.node(host))
            assert found and all(sa.fits(suite, "transport") for sa in found)
    seen = crossing(xen_lab, tmp_path / "ended.pcap", "swanctl --terminate --ike xenlab")
    assert seen["plain"] == 0 and seen["ike"] > 2 and seen["esp"] > 0  # the trap has made a new SA
    end = "p=$(cat /run/charon.pid); kill $p; while kill -0 $p 2>/dev/null; do sleep 0.1; done"
    assert crossing(xen_lab, tmp_path / "gone.pcap", end)["plain"] == 0  # charon has removed its policies

    change(xen_lab, ipsec=Suite.OFF)
    assert prove(xen_lab.provider, xen_lab.spec)["plain"] >= 24
    assert crossing(xen_lab, tmp_path / "open.pcap", "true")["plain"] > 0
    for host in ("host-a", "host-b"):
        assert xen_lab.node(host).check(["find", "/etc/swanctl", "-name", "xenlab*"]) == ""
