"""Programs that start and move guests by themselves, on a real Xen host that a guest has left: none runs the guest
on its old disk, and what they print leads to the answer.

libvirt and the ClusterLabs' agent are those of Debian. Of Ganeti the command lines are used that it runs
(ganeti/hypervisor/hv_xen.py of 3.0: StartInstance, AcceptInstance, MigrateInstance; XL_SOCAT_CMD). What a move
leaves behind is in test_xen_old_disks.py; here the disk is put aside by the same code without one: minutes less.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.hosts.guest import old_disk
from lab.hosts.interface import Node
from lab.hosts.lifecycle.lab import Lab
from lab.hosts.topology import HOST_A
from tests.helpers import debian
from tests.helpers.xen_moves import ASK, START, Guest, Move, clean, hosts

pytestmark = [pytest.mark.lab, pytest.mark.slow]
LIBVIRT = ("libvirt-daemon-system", "libvirt-daemon-driver-xen", "libvirt-clients")
AGENT = "/usr/lib/ocf/resource.d/heartbeat/Xen"
PORT = 8082


# DISK UUID: puts the disk of g1 aside, as if the guest had left for host-b.
_ASIDE = """
import os, sys
from pathlib import Path
from xenplugin.image.old import moving
disk, uuid = sys.argv[1:]
about = {"guest": "g1", "uuid": uuid, "host": "host-b", "migration": "0" * 32, "unwanted": False}
moving.put_aside(Path("/var/lib/xen/xenplugin"), moving.examine(disk, os.stat(disk).st_size, **about), print)
"""


@pytest.fixture(scope="module")
def guest(xen_lab: Lab) -> Iterator[Guest]:
    """g1, which runs on host-b; its old disk lies aside on host-a, where alone the plugin is enabled."""
    if debian.codename() != xen_lab.spec.xen.debian:
        pytest.skip(f"this machine fetches the packages of {debian.codename() or 'another system'}")
    near, far = hosts(xen_lab)
    made = Guest(xen_lab, "g1", ["memory=128"])
    for node in (near, far):
        old_disk.name_again(node, made.disk)
        node.check(["sh", "-c", '[ -s "$1" ] || xenlab-guest image raw "$1"', "sh", made.disk], timeout=START)
    try:
        made.create(far)
        near.check(["python3", "-c", _ASIDE, made.disk, made.home().domain.uuid], timeout=ASK)
        near.check(["xenplugin", "enable"], timeout=ASK)
        yield made
    finally:
        near.check(["xenplugin", "disable"], timeout=ASK)
        made.destroy()


def stayed(guest: Guest) -> None:
    """Check that the guest runs on, on host-b, intact."""
    assert guest.home().node.name != HOST_A.name
    guest.check_whole(rounds=1)


# Waits until QEMU's log of the guest $1 says that there is no file $2.
_NO_FILE = """
for try in $(seq 60); do
    ! grep -F "Could not stat file '$2'" "/var/log/xen/qemu-dm-$1.log" || exit 0
    sleep 1
done
cat "/var/log/xen/qemu-dm-$1.log" >&2
exit 1
"""


def started_without_disk(near: Node, guest: Guest) -> None:
    """Check that a domain was started on host-a whose disk QEMU cannot open, nor has made, and end it."""
    print(near.check(["sh", "-c", _NO_FILE, "sh", guest.name, guest.disk], timeout=START))
    near.check(["test", "!", "-e", guest.disk], timeout=ASK)
    near.run(["virsh", "-q", "destroy", guest.name], timeout=START)  # it may have ended by itself
    near.check(["rm", f"/var/log/xen/qemu-dm-{guest.name}.log"], timeout=ASK)
    stayed(guest)


def test_libvirt(xen_lab: Lab, guest: Guest, tmp_path: Path) -> None:
    """By hand, and by itself when its daemon starts. It has QEMU serve the disk, which libxl then does not look at:
    a domain starts that gets no disk."""
    near = hosts(xen_lab)[0]
    debian.install(near, LIBVIRT, tmp_path)
    # An emulated CPU lacks vme, and so every model of libvirt's: its driver for Xen would not start.
    near.check(["sed", "-i", "/'vme'/d", "/usr/share/libvirt/cpu_map/x86_486.xml"])
    near.check(["systemctl", "start", "libvirtd"], timeout=START)
    define = 'virsh domxml-from-native xen-xl "$1" >/run/guest.xml && virsh -q define /run/guest.xml'
    near.check(["sh", "-c", define, "sh", f"/srv/guests/{guest.name}.cfg"], timeout=START)
    try:
        near.check(["virsh", "start", guest.name], timeout=START)
        started_without_disk(near, guest)
        near.check(["virsh", "-q", "autostart", guest.name], timeout=ASK)
        near.check(["rm", "-f", "/run/libvirt/libxl/autostarted"])  # it does so once after the host has booted
        near.check(["systemctl", "restart", "libvirtd"], timeout=START)
        near.check(["virsh", "-q", "list", "--all"], timeout=START)  # answered after the autostart
        started_without_disk(near, guest)
    finally:
        near.run(["virsh", "-q", "destroy", guest.name], timeout=START)
        near.run(["virsh", "-q", "undefine", guest.name], timeout=ASK)
        units = ["libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket", "libvirtd"]
        near.check(["systemctl", "stop", *units], timeout=START)


def agent(guest: Guest, action: str, target: str = "") -> list[str]:
    """Return the command that runs an action of the cluster's agent, as Pacemaker does."""
    settings = {
        "OCF_ROOT": "/usr/lib/ocf",
        "OCF_RESOURCE_INSTANCE": guest.name,
        "OCF_RESKEY_xmfile": f"/srv/guests/{guest.name}.cfg",
        "OCF_RESKEY_CRM_meta_migrate_target": target,
    }
    return ["env", *(f"{name}={value}" for name, value in settings.items()), AGENT, action]


def test_the_agent_of_a_cluster_starts_it(xen_lab: Lab, guest: Guest, tmp_path: Path) -> None:
    near, far = hosts(xen_lab)
    for node in (near, far):
        folder = tmp_path / node.name
        folder.mkdir()
        debian.unpack(node, "resource-agents", "usr/lib/ocf", folder)
    done = near.run(agent(guest, "start"), timeout=START)
    print(done.error_text)
    assert done.code and "left for host-b" in done.error_text and "xenplugin: hint" in done.error_text
    stayed(guest)


def test_ganeti_starts_it(xen_lab: Lab, guest: Guest) -> None:
    near = hosts(xen_lab)[0]
    done = near.run(["xl", "create", "-p", f"/srv/guests/{guest.name}.cfg"], timeout=START)
    assert done.code == 1 and "left for host-b" in done.error_text
    stayed(guest)


def test_ganeti_moves_it_back(xen_lab: Lab, guest: Guest) -> None:
    """First with the plugin only where it comes to: that host's xl refuses. Then with it on both hosts: the other
    xl refuses a way to a receiver that is not ours."""
    near, far = hosts(xen_lab)
    address = HOST_A.nics[0].address
    listen = f"exec socat -b524288 TCP-LISTEN:{PORT},bind={address},reuseaddr SYSTEM:'xl migrate-receive'"
    config = f"/srv/guests/{guest.name}.cfg"
    words = ["xl", "migrate", "-s", f"socat -b524288 - TCP:{address}:{PORT} #", "-C", config, guest.name, address]
    with near.popen(["sh", "-c", listen], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as receiver:
        near.check(["sh", "-c", f"until ss -Hltn | grep -q :{PORT}; do sleep 0.1; done"], timeout=ASK)
        done = far.run(words, timeout=START)
        _, said = receiver.communicate(timeout=ASK * near.pace())
    print(done.error_text, said)
    assert done.code and "left for host-b" in said
    stayed(guest)
    far.check(["xenplugin", "enable"], timeout=ASK)
    try:
        done = far.run(words, timeout=START)
        assert done.code == 1 and "starts another receiver than xenplugin" in done.error_text, done.error_text
    finally:
        far.check(["xenplugin", "disable"], timeout=ASK)
    stayed(guest)


def test_the_agent_of_a_cluster_moves_it_back(xen_lab: Lab, guest: Guest) -> None:
    """As above; and with the plugin on both hosts the guest moves with its disk."""
    near, far = hosts(xen_lab)
    done = far.run(agent(guest, "migrate_to", near.name), timeout=START)
    print(done.error_text)
    assert done.code and "left for host-b" in done.error_text
    stayed(guest)
    far.check(["xenplugin", "enable"], timeout=ASK)
    try:
        code, said = Move(far, agent(guest, "migrate_to", near.name)).end()
        assert code == 0, said
    finally:
        far.check(["xenplugin", "disable"], timeout=ASK)
    assert guest.home().node.name == near.name
    guest.check_whole()
    assert clean(near) == clean(far) == []
