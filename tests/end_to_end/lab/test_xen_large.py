"""An HVM guest moves on real Xen with a qcow2 of 20 GiB, and with a logical volume that holds the same.

It prints how long the guest stands still with each. An emulated host reads 10 MB/s: so the volume has 2 GiB
only, and each disk 256 MiB of noise beside the guest's own data.
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
_ROUNDS = 3
VOLUME, QCOW2 = "/dev/xenlarge/disk", f"{_FOLDER}/disk.qcow2"
_VOLUME = f"""
set -e
truncate -s 2200M {_FOLDER}/volumes
loop=$(losetup -f --show {_FOLDER}/volumes)
pvcreate -q "$loop"
vgcreate -q xenlarge "$loop"
lvcreate -q -y -W n -L 2G -n disk xenlarge
"""
_DISKS = f"""
set -e
xenlab-guest image raw {_FOLDER}/raw
head -c 256M /dev/urandom | dd of={_FOLDER}/raw bs=1M seek=512 iflag=fullblock conv=notrunc status=none
truncate -s 2G {_FOLDER}/raw
qemu-img convert -f raw -O qcow2 {_FOLDER}/raw {QCOW2}
qemu-img resize -q -f qcow2 {QCOW2} 20G
qemu-img convert -n --target-is-zero -f raw -O raw {_FOLDER}/raw {VOLUME}
rm {_FOLDER}/raw
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


def downtime(guest: Guest) -> float:
    """Start the guest on host-a, and move it to host-b while it writes. Returns how long it stood still, in
    seconds."""
    near, far = hosts(guest.lab)
    guest.create(near)
    try:
        guest.say("disk 300")
        result = moved(near, far, guest.name, *FEW)
        print(f"{guest.disk}: {result}")
        assert result["mode"] == "live"
        guest.check_whole()
        assert clean(near) == clean(far) == []
    finally:
        guest.destroy()
    return float(result["downtime"])


def test_downtime_of_a_qcow2_beside_a_volume(xen_lab: Lab, near_and_far: tuple[Node, Node]) -> None:
    """In turns, because a machine is not equally busy all the time."""
    near, far = near_and_far
    for node in (near, far):
        sh(node, _VOLUME)
    near.check(["sh", "-c", _DISKS], timeout=START)
    seen: dict[str, list[float]] = {QCOW2: [], VOLUME: []}
    for _ in range(_ROUNDS):
        for disk, format in ((QCOW2, "qcow2"), (VOLUME, "raw")):
            words = f"format={format},vdev=xvda,access=rw,target={disk}"
            seen[disk].append(downtime(Guest(xen_lab, "g4", ["memory=128", f"disk=[{words!r}]"], disk=disk)))
    for disk, each in seen.items():
        print(f"{disk}: downtimes {each}, median {median(each)} s")
    print(f"qcow2 / volume: {median(seen[QCOW2]) / median(seen[VOLUME]):.2f}")
