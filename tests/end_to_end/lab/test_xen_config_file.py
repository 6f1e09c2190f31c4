"""A guest's configuration file on real Xen, there and back: which host starts the guest when it is restarted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.hosts.interface import Node
from lab.hosts.lifecycle.lab import Lab
from tests.helpers.xen_moves import ASK, Guest, autostart, clean, domains, hosts, moved, started_to_leave

pytestmark = [pytest.mark.lab, pytest.mark.slow]
_FILE, _LINK = "/etc/xen/g1.cfg", "/etc/xen/auto/10-g1"
_SET_UP = f"""
    mkdir -p /etc/xen/auto
    {{ echo '# comments stay'; cat /srv/guests/g1.cfg; echo "uuid = '$1'"; }} > {_FILE}
    chmod 640 {_FILE}
    ln -s ../g1.cfg {_LINK}
"""
_TAKE_DOWN = f"""
    rm -f {_FILE} {_FILE}.* {_LINK}
    grep -lsF '"storage": "config"' /var/lib/xen/xenplugin/left/*.json | xargs -r rm
"""


@pytest.fixture(scope="module")
def guest(xen_lab: Lab) -> Iterator[Guest]:
    """g1 on host-a, with a configuration file in /etc/xen there. It has the guest's uuid: without one a restart
    makes it another guest, whose way back leaves the old disk and the old file aside."""
    near, far = hosts(xen_lab)
    try:
        with started_to_leave(xen_lab) as made:
            near.check(["sh", "-c", _SET_UP, "sh", made.home().domain.uuid])
            yield made
    finally:
        for node in (near, far):
            node.run(["sh", "-c", _TAKE_DOWN], timeout=ASK)


def text(node: Node, path: str = _FILE) -> str:
    return node.check(["cat", path], timeout=ASK)


def files(node: Node) -> list[str]:
    return node.check(["sh", "-c", "cd /etc/xen && ls -dA g1.cfg* .g1* auto/* 2>/dev/null; :"], timeout=ASK).split()


def restarted(node: Node) -> list[str]:
    """What a restarting host does; returns the guests that run then."""
    print(autostart(node))
    return [domain.name for domain in domains(node)]


def test_there(xen_lab: Lab, guest: Guest) -> None:
    near, far = hosts(xen_lab)
    before = text(near)
    moved(near, far, guest.name)
    assert files(far) == ["auto/10-g1", "g1.cfg"] and text(far) == before
    (old,) = files(near)
    assert old.startswith("g1.cfg.left-for-host-b-") and text(near, f"/etc/xen/{old}") == before
    guest.check_whole()
    assert restarted(near) == []
    assert restarted(far) == [guest.name]
    guest.check_whole()


def test_a_restart_of_the_far_host(xen_lab: Lab, guest: Guest) -> None:
    """Its guest is gone, and xendomains starts it there, from the file that has come."""
    far = hosts(xen_lab)[1]
    for domain in domains(far):
        far.check(["xl", "destroy", str(domain.domid)], timeout=ASK)
    assert restarted(far) == [guest.name]
    assert guest.home().node.name == far.name


def test_the_way_back(xen_lab: Lab, guest: Guest) -> None:
    """What was changed on the far host comes back, to where the file was."""
    near, far = hosts(xen_lab)
    far.check(["sh", "-c", f"echo '# changed there' >> {_FILE}"])
    before = text(far)
    moved(far, near, guest.name)
    assert files(near) == ["auto/10-g1", "g1.cfg"] and text(near) == before
    assert near.check(["readlink", _LINK], timeout=ASK).strip() == "../g1.cfg"
    assert near.check(["stat", "-c", "%a", _FILE], timeout=ASK).strip() == "640"
    assert [name.partition(".left-for-")[0] for name in files(far)] == ["g1.cfg"]
    assert restarted(far) == [] and guest.home().node.name == near.name
    assert clean(near) == clean(far) == []
