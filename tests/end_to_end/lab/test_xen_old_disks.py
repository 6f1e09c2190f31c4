"""Old disks on real Xen: nothing that an administrator or a restarting host does runs the guest on one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.hosts.interface import Node
from lab.hosts.lifecycle.lab import Lab
from tests.fakes import lvm_cases
from tests.helpers.xen_moves import ASK, START, Guest, autostart, clean, hosts, left_over, moved, started_to_leave

pytestmark = [pytest.mark.lab, pytest.mark.slow]
_GROUP = "vg-lab"


@pytest.fixture(scope="module")
def guest(xen_lab: Lab) -> Iterator[Guest]:
    """g1, which has left host-a for host-b; the plugin is enabled on host-a only."""
    near, far = hosts(xen_lab)
    with started_to_leave(xen_lab) as made:
        moved(near, far, made.name)
        yield made


def old_disks(node: Node) -> list[str]:
    return [row["aside"] for row in left_over(node)]


def test_the_disk_lies_aside(xen_lab: Lab, guest: Guest) -> None:
    near = hosts(xen_lab)[0]
    (old,) = old_disks(near)
    assert old.startswith(f"{guest.disk}.left-for-host-b-")
    assert near.run(["test", "-e", guest.disk]).code and near.run(["test", "-s", old]).code == 0
    guest.check_whole()


@pytest.mark.parametrize("xl", ["xl", "/usr/sbin/xl"])
def test_xl_create(xen_lab: Lab, guest: Guest, xl: str) -> None:
    near = hosts(xen_lab)[0]
    done = near.run([xl, "create", f"/srv/guests/{guest.name}.cfg"], timeout=START)
    assert done.code == 1 and "left for host-b" in done.error_text and "xenplugin: hint" in done.error_text
    assert guest.home().node.name != near.name


def test_the_real_xl_finds_no_disk(xen_lab: Lab, guest: Guest) -> None:
    near = hosts(xen_lab)[0]
    done = near.run(["/usr/libexec/xl", "create", f"/srv/guests/{guest.name}.cfg"], timeout=START)
    assert done.code and guest.home().node.name != near.name


def test_autostart(xen_lab: Lab, guest: Guest) -> None:
    """What a restarted host does with the links in /etc/xen/auto."""
    near = hosts(xen_lab)[0]
    link = f"/etc/xen/auto/{guest.name}.cfg"
    near.check(
        ["sh", "-c", 'mkdir -p /etc/xen/auto && ln -sf "$1" "$2"', "sh", f"/srv/guests/{guest.name}.cfg", link]
    )
    try:
        said = autostart(near)
        assert "left for host-b" in said and "xenplugin: hint" in said, said
        assert guest.home().node.name != near.name
    finally:
        near.run(["rm", link])


def test_plain_xl_back(xen_lab: Lab, guest: Guest) -> None:
    """host-b has not enabled the plugin."""
    near, far = hosts(xen_lab)
    done = far.run(["xl", "migrate", guest.name, near.name], timeout=START)
    assert done.code and "left for host-b" in done.error_text, done.error_text
    guest.check_whole()
    assert guest.home().node.name == far.name


def test_the_way_back(xen_lab: Lab, guest: Guest) -> None:
    near, far = hosts(xen_lab)
    result = moved(far, near, guest.name)
    assert result["bytes_wire"] < result["bytes_data"]
    guest.check_whole()
    assert old_disks(near) == [] and len(old_disks(far)) == 1
    assert clean(near) == clean(far) == []


def test_lvm_does_what_its_stand_in_does(xen_lab: Lab) -> None:
    near = hosts(xen_lab)[0]
    script = f"""
        set -e
        cat > /var/tmp/lvm_cases.py
        truncate -s 64M /var/tmp/vg.img
        loop=$(losetup --find --show /var/tmp/vg.img)
        vgcreate -q {_GROUP} $loop >&2
        lvcreate -q -y -L 8M -n g1 {_GROUP} >&2
        lvcreate -q -y -L 8M -n other {_GROUP} >&2
        uuid=$(python3 -c 'from xenplugin.image.old import volume; print(volume.uuid_of("/dev/{_GROUP}/g1"))')
        python3 /var/tmp/lvm_cases.py $uuid
    """
    try:
        said = near.check(["sh", "-c", script], Path(lvm_cases.__file__).read_text(), timeout=START)
    finally:
        near.run(
            [
                "sh",
                "-c",
                f"vgremove -qfy {_GROUP}; losetup -d $(losetup -nO NAME -j /var/tmp/vg.img); rm /var/tmp/vg.img",
            ],
            timeout=ASK,
        )
    assert json.loads(said.splitlines()[-1]) == [lvm_cases.EXPECTED, None]
