"""CDs in the drives of guests on real Xen: left where the other host has the image, copied along, or ejected.

An HVM guest's drive is asked of its QEMU, which names the image that it has opened.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.hosts.guest.guest_type import GuestType
from lab.hosts.interface import Node
from lab.hosts.lifecycle.lab import Lab
from tests.end_to_end.lab.test_xen_formats import Disks, running
from tests.helpers.xen_moves import ASK, FEW, Guest, clean, hosts, moved
from tests.helpers.xen_settings import configured, sh

pytestmark = [pytest.mark.lab, pytest.mark.slow]
CD = "/srv/guests/install.iso"
DISK = Disks(qcow2="qcow2")
#: QEMU's name of hdd, which libxl makes of its number, 22 << 8 | 64.
HDD = "ide-5696"


@pytest.fixture
def image(xen_lab: Lab) -> Iterator[str]:
    """The digest of a CD image at CD on host-a; host-b has none."""
    near, far = hosts(xen_lab)
    try:
        sh(far, f"rm -f {CD}")
        yield sh(near, f"head -c 3145728 /dev/urandom >{CD}; sha256sum <{CD}")
    finally:
        for node in (near, far):
            sh(node, f"rm -f {CD}")


def drive(device: str) -> str:
    return f"format=raw,vdev={device},access=ro,devtype=cdrom,target={CD}"


def inserted(node: Node, guest: Guest) -> bool:
    """Return whether QEMU has the image in the guest's drive; it must have that image or none."""
    said = node.check(["xl", "qemu-monitor-command", guest.name, f"info block {HDD}"], timeout=ASK)
    assert ("[not inserted]" in said) != (CD in said), said
    return CD in said


def arrived(guest: Guest) -> None:
    guest.check_whole()
    for node in hosts(guest.lab):
        assert clean(node) == []


def test_an_image_moves_along_and_is_left_on_the_way_back(xen_lab: Lab, image: str) -> None:
    near, far = hosts(xen_lab)
    with running(xen_lab, GuestType.HVM, DISK, drive("hdd")) as guest:
        assert inserted(near, guest)
        result = moved(near, far, guest.name, *FEW)
        assert (len(result["disks"]), result["staying"]) == (2, [])
        assert inserted(far, guest) and sh(far, f"sha256sum <{CD}") == image
        arrived(guest)
        assert sh(near, f"sha256sum <{CD}") == image  # a copy moved: others may use this one
        result = moved(far, near, guest.name, *FEW)
        assert [(one["device"], one["path"], one["why"]) for one in result["staying"]] == [("hdd", CD, "left")]
        assert inserted(near, guest)
        arrived(guest)


def test_an_image_is_ejected(xen_lab: Lab, image: str) -> None:
    """The guest's record of its drive, with a medium, is taken by a drive without one. An empty one goes back."""
    near, far = hosts(xen_lab)
    with running(xen_lab, GuestType.HVM, DISK, drive("hdd")) as guest:
        with configured([near], 'cds = "eject"'):
            result = moved(near, far, guest.name, *FEW)
        assert [(one["device"], one["why"]) for one in result["staying"]] == [("hdd", "ejected")]
        assert not inserted(far, guest) and sh(far, f"ls {CD} 2>/dev/null || echo none") == "none"
        arrived(guest)
        result = moved(far, near, guest.name, *FEW)
        assert (len(result["disks"]), result["staying"]) == (1, [])
        assert not inserted(near, guest)
        arrived(guest)


def test_the_image_of_a_guest_without_emulated_drives_moves_along(xen_lab: Lab, image: str) -> None:
    near, far = hosts(xen_lab)
    with running(xen_lab, GuestType.PVH, DISK, drive("xvdd")) as guest:
        with configured([near], 'cds = "eject"'):
            result = moved(near, far, guest.name, *FEW)
        assert (len(result["disks"]), result["staying"]) == (2, [])
        assert sh(far, f"sha256sum <{CD}") == image
        arrived(guest)
