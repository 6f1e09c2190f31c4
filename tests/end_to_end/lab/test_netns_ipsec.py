"""Real ESP between two namespaces: on and off, proved by captures, and nothing in the clear when charon ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab.errors import CheckError
from lab.hosts.interface import Node
from lab.hosts.lifecycle.lab import Lab
from lab.hosts.role import ipsec, swan
from lab.hosts.role.capture import record_all
from lab.hosts.role.swan_proof import count, prove
from lab.hosts.spec import Auth, Suite
from netem.profile import Profile
from tests.helpers.labs import change

pytestmark = [pytest.mark.root, pytest.mark.lab]
A, B = swan.ends("tunnel")


def hosts(lab: Lab) -> list[Node]:
    return [lab.node(end.name) for end in (A, B)]


def pings(node: Node, address: str) -> bool:
    return not node.run(["ping", "-n", "-q", "-c", "2", "-i", "0.2", "-W", "1", address]).code


def crossing(lab: Lab, path: Path) -> dict[str, int]:
    """Return the packets by kind that cross the link while host-a tries to reach host-b."""
    record_all(lab.provider, path, lambda: pings(lab.node("host-a"), B.address))
    return count(path, {A.address, A.endpoint}, {B.address, B.endpoint})


@pytest.mark.parametrize("auth", list(Auth))
@pytest.mark.parametrize("suite", [Suite.PAPER, Suite.TODAY])
def test_only_esp_of_the_suite_crosses(netns_ipsec_lab: Lab, suite: Suite, auth: Auth) -> None:
    lab = netns_ipsec_lab
    change(lab, ipsec=suite, auth=auth)
    seen = prove(lab.provider, lab.spec)
    assert seen["esp"] >= 24
    assert seen["plain"] == 0 and seen["other"] == 0
    for node in hosts(lab):
        [sa] = ipsec.associations(node)
        assert sa.fits(suite, "tunnel")
        assert sa.bytes_in > 3 * 1200 and sa.bytes_out > 3 * 1200
        files = node.check(["sh", "-c", "find /etc/swanctl -type f -perm /077 | sort"]).split()
        public = [swan.CERTIFICATE, swan.AUTHORITY] if auth is Auth.CERT else []
        assert files == sorted(public)


def test_off_again_leaves_no_charon_and_no_key(netns_ipsec_lab: Lab) -> None:
    lab = netns_ipsec_lab
    change(lab, ipsec=Suite.TODAY)
    change(lab, ipsec=Suite.OFF)
    assert prove(lab.provider, lab.spec)["plain"] >= 24
    for node in hosts(lab):
        assert node.check(["find", "/etc/swanctl", "-type", "f"]) == ""
        assert node.run(["ls", "/run/charon.pid"]).code
        assert "ipsec0" not in node.check(["ip", "link"])


def test_the_ipsec_check_can_fail_both_ways(netns_ipsec_lab: Lab) -> None:
    lab = netns_ipsec_lab
    change(lab, ipsec=Suite.OFF)
    with pytest.raises(CheckError, match="in the clear"):
        prove(lab.provider, replace(lab.spec, ipsec=Suite.PAPER))
    change(lab, ipsec=Suite.PAPER)
    with pytest.raises(CheckError, match="IPsec is off"):
        prove(lab.provider, replace(lab.spec, ipsec=Suite.OFF))


def test_another_suite_than_asked_for_is_noticed(netns_ipsec_lab: Lab) -> None:
    lab = netns_ipsec_lab
    change(lab, ipsec=Suite.TODAY)
    [sa] = ipsec.associations(lab.node("host-a"))
    assert not sa.fits(Suite.PAPER, "tunnel")


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_nothing_leaves_in_the_clear_when_the_tunnel_ends(
    netns_ipsec_lab: Lab, tmp_path: Path, signal: str
) -> None:
    lab = netns_ipsec_lab
    change(lab, ipsec=Suite.OFF)  # the test before has killed charon
    change(lab, ipsec=Suite.TODAY)
    node = lab.node("host-a")
    node.check(["sh", "-c", f"kill -{signal} $(cat /run/charon.pid)"])
    gone = "for i in $(seq 300); do ip link show ipsec0 >/dev/null 2>&1 || exit 0; sleep 0.1; done; exit 1"
    node.check(["sh", "-c", gone])
    seen = crossing(lab, tmp_path / "guarded.pcap")
    assert seen["plain"] == 0
    assert not pings(node, B.address)

    node.check(["ip", "route", "del", "blackhole", "10.71.2.0/24"])
    node.check(["ip", *swan.plain_route("host-a", "host-b", "wan")])
    assert crossing(lab, tmp_path / "open.pcap")["plain"] > 0  # the leak that the guard prevents


def test_it_comes_up_again_after_charon_was_killed(netns_ipsec_lab: Lab) -> None:
    lab = netns_ipsec_lab
    change(lab, ipsec=Suite.PAPER)
    lab.node("host-b").check(["sh", "-c", "kill -KILL $(cat /run/charon.pid)"])
    change(lab, ipsec=Suite.TODAY)
    assert prove(lab.provider, lab.spec)["esp"] >= 24


def test_the_tunnel_lives_on_when_the_link_changes(netns_ipsec_lab: Lab) -> None:
    lab = netns_ipsec_lab
    change(lab, ipsec=Suite.TODAY)
    change(lab, link=Profile(rtt=0.06))
    try:
        assert prove(lab.provider, lab.spec)["plain"] == 0
    finally:
        change(lab, link=Profile())


def test_the_reason_for_a_failure_is_reported(netns_ipsec_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = netns_ipsec_lab
    change(lab, ipsec=Suite.OFF)
    secrets = iter(["0x00", "0x01"])
    real = swan.connection

    def two_minds(suite: Suite, auth: Auth, esp: str, here: swan.End, there: swan.End, _: str | None) -> str:
        return real(suite, auth, esp, here, there, next(secrets))

    monkeypatch.setattr(swan, "connection", two_minds)
    with pytest.raises(Exception, match="AUTHENTICATION_FAILED"):
        change(lab, ipsec=Suite.TODAY, auth=Auth.PSK)
    monkeypatch.undo()
    change(lab, ipsec=Suite.OFF)
