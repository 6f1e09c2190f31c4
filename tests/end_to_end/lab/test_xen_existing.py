"""The existing way on real Xen: a guest is migrated by plain xl migrate, and is intact afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import cli
from lab.hosts.lifecycle.lab import Lab
from lab.hosts.role.capture import recording
from lab.hosts.spec import Suite
from lab.hosts.topology import HOST_A, HOST_B
from lab.measure.ways import WAYS
from lab.measure.xen.guest import GUEST, destroy, domains
from lab.measure.xen.hosts import measure
from tests.helpers.labs import change

pytestmark = [pytest.mark.lab, pytest.mark.slow]


@pytest.mark.smoke
def test_a_guest_moves_through_ipsec(xen_lab: Lab) -> None:
    change(xen_lab, ipsec=Suite.PAPER)
    said: list[str] = []
    figures = measure(WAYS["existing"], xen_lab, said.append).figures
    # 256 MiB of memory were carried, most of them zero and sent as such or not at all
    assert figures is not None
    assert figures.router_bytes is not None and figures.router_bytes > 100e6
    assert figures.downtime is not None and 0 < figures.downtime < figures.seconds
    assert figures.ticks is not None and figures.ticks >= 10
    assert "Migration successful" in figures.said[-1]
    assert any(GUEST in line and HOST_B.name in line for line in said)
    for host in (HOST_A, HOST_B):
        assert domains(xen_lab.node(host.name)) == []


def test_what_is_not_protected_is_found_on_the_wire(xen_lab: Lab, tmp_path: Path) -> None:
    """The wire check finds every canary in the stream of real xl and in a plain copy of the disk."""
    change(xen_lab, ipsec=Suite.OFF)
    capture = tmp_path / "plain.pcap"
    with recording(xen_lab.provider, capture):
        figures = measure(WAYS["plain"], xen_lab, lambda text: None).figures
    assert figures is not None and figures.router_bytes is not None
    assert "Migration successful" in figures.said[-1] and figures.router_bytes > 100e6
    assert cli.main(["verify-wire", "--expect", "plain", str(capture)]) == 0
    assert cli.main(["verify-wire", "--expect", "esp", str(capture)]) == 12


def test_what_a_failed_migration_leaves_is_ended(xen_lab: Lab) -> None:
    source = xen_lab.node(HOST_A.name)
    source.check(["xl", "create", "-q", f"/srv/guests/{GUEST}.cfg"], timeout=300)
    source.check(["xl", "rename", GUEST, f"{GUEST}--migratedaway"], timeout=120)
    assert domains(source) == [f"{GUEST}--migratedaway"]
    destroy(source)
    assert domains(source) == []
