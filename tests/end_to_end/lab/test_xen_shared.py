"""Shared disks stay where they are, on real Xen: with NFS and iSCSI from the router, and with Xen's block-iscsi.

The guest writes to its disks until it is suspended. Whether one host alone has a shared disk is asked of the hosts
while the guest stands still, and the disk's content, as each host sees it, of the server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab.hosts.interface import Node
from lab.hosts.lifecycle.lab import Lab
from lab.hosts.role import shared_storage
from lab.hosts.role.shared_storage import FOLDER, MOUNT, PORTAL, Target
from lab.hosts.topology import ROUTER
from tests.helpers.xen_moves import ASK, FEW, Guest, clean, hosts, left_over, migrate, moved
from tests.helpers.xen_settings import configured, sh
from tests.helpers.xen_trap import Trap

pytestmark = [pytest.mark.lab, pytest.mark.slow]
#: The guest's stamps fill 8 MiB of each further disk.
_SIZE = 16 << 20
#: Both hosts are logged in at the first; at the other the block script logs in.
LUN, BY_SCRIPT = Target("lun"), Target("scripted")
LOCAL = "format=raw,vdev=xvda,access=rw,target=/srv/guests/g1.img"
ROOT_ON_NFS = f"format=raw,vdev=xvda,access=rw,target={MOUNT}/root.img"
ON_NFS = f"format=raw,vdev=xvdb,access=rw,target={MOUNT}/data.img"
ON_LUN = f"format=raw,vdev=xvdb,access=rw,target={LUN.path}"
WORDS = f"iqn={BY_SCRIPT.iqn},portal={PORTAL}"
SCRIPTED = f"format=raw,vdev=xvdb,access=rw,script=block-iscsi,target={WORDS}"


@pytest.fixture(scope="module")
def storage(xen_lab: Lab) -> Iterator[Node]:
    """The router, which serves a folder and two LUNs that both hosts can use."""
    router = xen_lab.node(ROUTER.name)
    for host in hosts(xen_lab):
        shared_storage.leave(host)
    try:
        shared_storage.serve(router, [LUN, BY_SCRIPT], _SIZE)
        sh(router, f"truncate -s {_SIZE} {FOLDER}/data.img")
        for host in hosts(xen_lab):
            shared_storage.join(host, [LUN])
        yield router
    finally:
        for host in hosts(xen_lab):
            shared_storage.leave(host)
        shared_storage.end(router)


@contextmanager
def running(lab: Lab, *disks: str, own: str = "") -> Iterator[Guest]:
    """Start g1 with these disks on host-a; `own`: the path of its first, if it is not its file in /srv/guests."""
    guest = Guest(lab, "g1", ["memory=128", f"disk={list(disks)!r}"], disk=own)
    near, far = hosts(lab)
    try:
        guest.create(near)
        if not own:
            guest.forget_disk(far)
        guest.say("disk 300")
        yield guest
    finally:
        guest.destroy()


def has(node: Node, path: str) -> bool:
    """Return whether the host serves the file to a guest, by a loop device."""
    return sh(node, f"losetup -n -O NAME -j {path}") != ""


def seen(node: Node, path: str) -> str:
    return sh(node, f"sha256sum <{path}")


def there(guest: Guest, *stay: tuple[str, str, str], moving: int) -> dict[str, Any]:
    """Move the guest to the other host, live, and check that these disks (device, path, why) stay."""
    source, target = guest.sides()
    result = moved(source, target, guest.name, *FEW)
    print(f"result {result}")
    assert [(one["device"], one["path"], one["why"]) for one in result["staying"]] == list(stay)
    assert (result["mode"], len(result["disks"])) == ("live", moving)
    assert guest.home().node.name == target.name
    guest.check_whole()
    assert clean(source) == clean(target) == []
    return result


def refused(guest: Guest, *words: str) -> dict[str, Any]:
    """Try to move the guest, which is refused with these words before xl is started, and runs on. Returns the last
    event."""
    source, target = guest.sides()
    move = migrate(source, target, guest.name, *FEW)
    code, _ = move.end()
    last = move.events()[-1]
    assert code == 15 and all(word in last["error"] for word in words), last
    assert not [event for event in move.events() if event["event"] == "phase"]
    assert guest.home().node.name == source.name
    guest.check_whole(rounds=1)
    assert clean(source) == clean(target) == []
    return last


def test_a_local_disk_goes_and_one_on_nfs_stays(xen_lab: Lab, storage: Node) -> None:
    """There and back. While the guest stands still the other host has not opened the shared file."""
    near, far = hosts(xen_lab)
    path, file = f"{MOUNT}/data.img", f"{FOLDER}/data.img"
    inode = sh(storage, f"stat -c %i {file}")
    stays = ("xvdb", path, "shared")
    with running(xen_lab, LOCAL, ON_NFS) as guest:
        plan = json.loads(near.check(["xenplugin", "plan", "--json", "g1", far.name], timeout=ASK))
        assert f"xvdb stays: both hosts share {path}" in [check["text"] for check in plan["checks"]]
        for source, target in ((near, far), (far, near)):
            assert (has(source, path), has(target, path)) == (True, False)
            asked = f"ssh {target.name} losetup -n -O NAME -j {path}; echo asked"
            trap = Trap(source, ("event", '"name": "stopped"'), asked)
            try:
                there(guest, stays, moving=1)
                assert trap.end() == "asked\n"
            finally:
                trap.close()
            assert (has(source, path), has(target, path)) == (False, True)
            assert [row["path"] for row in left_over(source)] == [guest.disk]
            assert sh(storage, f"stat -c %i {file}; ls -A {FOLDER}") == f"{inode}\ndata.img"
        before = seen(storage, file)
        guest.check_whole()
        assert seen(storage, file) != before  # the guest writes to it
    # All that it wrote is there, whichever host is asked.
    assert seen(storage, file) == seen(near, path) == seen(far, path)


def test_memory_alone(xen_lab: Lab, storage: Node) -> None:
    """All its disks are shared, that from which it runs as well."""
    near, _ = hosts(xen_lab)
    path = f"{MOUNT}/root.img"
    sh(near, f"xenlab-guest image raw {path}")
    stays = [("xvda", path, "shared"), ("xvdb", f"{MOUNT}/data.img", "shared")]
    with running(xen_lab, ROOT_ON_NFS, ON_NFS, own=path) as guest:
        for _ in "there", "back":
            result = there(guest, *stays, moving=0)
            assert 0 < result["bytes_wire"] < result["bytes_memory"] / 2
            assert result["cipher"] and result["level"] == 1
        trace = guest.check_whole(rounds=3)
        print(f"downtimes {sorted(trace.gaps)[-2:]}")
        assert path not in [row.get("path") for row in left_over(near)]
    sh(near, f"rm {path}")


def test_a_lun_stays_where_it_is_declared(xen_lab: Lab, storage: Node) -> None:
    """Not before: a clone of it would have the same names."""
    near, far = hosts(xen_lab)
    declared = f'shared = ["{LUN.path}"]'
    with running(xen_lab, LOCAL, ON_LUN) as guest:
        last = refused(guest, LUN.path, "both hosts share it")
        assert declared in last["hint"], last
        with configured([near], declared):
            last = refused(guest, "declared as shared on the source, but not on this host")
        with configured([near, far], declared):
            for _ in "there", "back":
                there(guest, ("xvdb", LUN.path, "shared"), moving=1)
            guest.check_whole()
    assert seen(storage, LUN.image) == seen(near, LUN.path)


def test_a_block_script_attaches_it_on_the_far_host(xen_lab: Lab, storage: Node) -> None:
    near, far = hosts(xen_lab)
    with running(xen_lab, LOCAL, SCRIPTED) as guest:
        assert sessions(near) and not sessions(far)
        program = sh(far, "command -v iscsiadm")
        sh(far, f"mv {program} {program}.away")
        try:
            last = refused(guest, "iscsiadm, which block-iscsi needs for xvdb")
        finally:
            sh(far, f"mv {program}.away {program}")
        assert "open-iscsi" in last["hint"], last
        for source, target in ((near, far), (far, near)):
            there(guest, ("xvdb", WORDS, "script"), moving=1)
            assert sessions(target) and not sessions(source)
        guest.check_whole()


def sessions(node: Node) -> list[str]:
    """Return the host's sessions at the script's target."""
    done = node.run(["iscsiadm", "-m", "session"], timeout=ASK)
    return [line for line in done.stdout.splitlines() if BY_SCRIPT.iqn in line]
