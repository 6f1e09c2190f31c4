"""An HVM guest with a disk of 20 GiB, 1 GiB of it data, moves on real Xen: as a qcow2, and as a logical volume.

It prints how long the guest stands still with each.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import pytest

from lab.hosts.interface import Node
from lab.hosts.lifecycle.lab import Lab
from tests.helpers.xen_moves import FEW, START, Guest, clean, hosts, moved
from tests.helpers.xen_settings import sh

pytestmark = [pytest.mark.lab, pytest.mark.slow]
_FOLDER = "/srv/guests/large"
VOLUME, QCOW2 = "/dev/xenlarge/disk", f"{_FOLDER}/disk.qcow2"
_VOLUME = f"""
set -e
truncate -s 21G {_FOLDER}/volumes
loop=$(losetup -f --show {_FOLDER}/volumes)
pvcreate -q "$loop"
vgcreate -q xenlarge "$loop"
lvcreate -q -y -W n -L 20G -n disk xenlarge
"""
_RAW = f"""
set -e
xenlab-guest image raw {_FOLDER}/raw
truncate -s 20G {_FOLDER}/raw
head -c 1G /dev/urandom | dd of={_FOLDER}/raw bs=1M seek=4096 iflag=fullblock conv=notrunc status=none
"""
_CLEAN = f"""
if vgs xenlarge >/dev/null 2>&1; then vgremove -qfy xenlarge >/dev/null; fi
losetup -n -O NAME -j {_FOLDER}/volumes | xargs -r losetup -d
rm -rf {_FOLDER}
grep -lsF -e '"path": "{QCOW2}"' -e '"path": "{VOLUME}"' /var/lib/xen/xenplugin/left/*.json | xargs -r rm
"""


@pytest.fixture
def near_and_far(xen_lab: Lab) -> Iterator[tuple[Node, Node]]:
    """host-a and host-b, with an empty folder for these disks."""
    both = hosts(xen_lab)
    for node in both:
        sh(node, f"{_CLEAN}\nmkdir {_FOLDER}")
    try:
        yield both
    finally:
        for node in both:
            sh(node, _CLEAN)


def downtimes(guest: Guest) -> list[float]:
    """Move the guest there, back and there again while it writes. Returns how long it stood still, in seconds."""
    near, far = hosts(guest.lab)
    guest.create(near)
    guest.say("disk 300")
    found = []
    try:
        for source, target in ((near, far), (far, near), (near, far)):
            result = moved(source, target, guest.name, *FEW)
            print(f"{guest.disk}: {result}")
            assert result["mode"] == "live"
            guest.check_whole()
            assert clean(source) == clean(target) == []
            found.append(result["downtime"])
    finally:
        guest.destroy()
    return found


def test_downtime_of_a_qcow2_beside_a_volume(xen_lab: Lab, near_and_far: tuple[Node, Node]) -> None:
    near, far = near_and_far
    near.check(["sh", "-c", _RAW], timeout=START)
    seen: dict[str, list[float]] = {}
    for kind, format, path in (("qcow2", "qcow2", QCOW2), ("volume", "raw", VOLUME)):
        if path == VOLUME:
            for node in (near, far):
                sh(node, _VOLUME)
            sh(near, f"qemu-img convert -n --target-is-zero -f raw -O raw {_FOLDER}/raw {path}")
        else:
            sh(near, f"qemu-img convert -f raw -O qcow2 {_FOLDER}/raw {path}")
        disk = f"format={format},vdev=xvda,access=rw,target={path}"
        seen[kind] = downtimes(Guest(xen_lab, "g4", ["memory=128", f"disk=[{disk!r}]"], disk=path))
    for kind, each in seen.items():
        print(f"{kind}: downtimes {each}, median {median(each)} s")
    print(f"qcow2 / volume: {median(seen['qcow2']) / median(seen['volume']):.2f}")
