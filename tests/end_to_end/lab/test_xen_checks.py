"""The checks before a guest moves, on real Xen: each fault is made for real, and refused before xl is started."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lab.hosts.interface import Node
from lab.hosts.lifecycle.lab import Lab
from lab.hosts.topology import HOST_A
from tests.helpers.xen_moves import ASK, START, Guest, Move, clean, domains, hosts, moved
from tests.helpers.xen_settings import configured, sh

pytestmark = [pytest.mark.lab, pytest.mark.slow]
_CD = "/srv/guests/cd.iso"
_DISK = "format=raw,vdev=xvda,access=rw,target=/srv/guests/g1.img"
_DRIVE = f"format=raw,vdev=xvdz,access=ro,devtype=cdrom,target={_CD}"
_KERNEL = 'kernel="/srv/guests/vmlinuz"\nramdisk="/srv/guests/initrd"\n'


@pytest.fixture(scope="module")
def guest(xen_lab: Lab) -> Iterator[Guest]:
    """g1 on host-a, with a CD drive, and no copy of its disk on host-b."""
    near, far = hosts(xen_lab)
    for node in (near, far):
        node.check(["sh", "-c", f"head -c 1048576 /dev/zero >{_CD}"])
    made = Guest(xen_lab, "g1", ["memory=128", f"disk=[{_DISK!r}, {_DRIVE!r}]"])
    try:
        made.create(near)
        made.forget_disk(far)
        yield made
    finally:
        made.destroy()
        for node in (near, far):
            node.run(["rm", "-f", _CD])


def planned(near: Node, far: Node, name: str = "g1") -> dict[str, Any]:
    """What `xenplugin plan` prints, and in `seconds` how long that took."""
    begun = time.monotonic()
    done = near.run(["xenplugin", "plan", "--json", name, far.name], timeout=ASK)
    assert done.code in (0, 15), (done.code, done.error_text)
    result: dict[str, Any] = json.loads(done.stdout)
    assert (result["outcome"], done.code) in (("planned", 0), ("refused", 15)), result
    return {**result, "seconds": time.monotonic() - begun}


def results(plan: dict[str, Any], verdict: str) -> dict[str, str]:
    return {check["name"]: check["text"] for check in plan["checks"] if check["verdict"] == verdict}


def paused(node: Node, name: str, memory: int, kind: str = "pvh") -> None:
    """Create a guest without disks, and leave it paused."""
    text = f'name="{name}"\ntype="{kind}"\nmemory={memory}\n{_KERNEL}'
    node.check(["sh", "-c", "cat >/run/chk.cfg && xl create -p -q /run/chk.cfg"], text, timeout=START)


def test_a_guest_that_can_move(xen_lab: Lab, guest: Guest) -> None:
    """Everything is known on real Xen: no check has to say that it cannot tell."""
    near, far = hosts(xen_lab)
    plan = planned(near, far)
    print(json.dumps(plan, indent=1))
    logins = [_seconds(near, ["ssh", far.name, "xenplugin", "--version"]) for _ in range(3)]
    print(f"plan {plan['seconds']:.1f} s, one login with a start of Python there {sorted(logins)[1]:.1f} s")
    assert plan["outcome"] == "planned" and results(plan, "warn") == {}, results(plan, "warn")
    assert "all features" in results(plan, "pass")["cpu"]
    assert guest.home().node.name == near.name and clean(near) == clean(far) == []


def _seconds(node: Node, words: list[str]) -> float:
    begun = time.monotonic()
    node.check(words, timeout=ASK)
    return time.monotonic() - begun


@contextmanager
def no_bridge(near: Node, far: Node) -> Iterator[None]:
    sh(near, "ip link add xlchk0 type bridge && ip link set xlchk0 up")
    try:
        sh(near, "xl network-attach g1 bridge=xlchk0")
        yield
    finally:
        sh(near, "xl network-detach g1 0; ip link del xlchk0; :")


@contextmanager
def little_memory(near: Node, far: Node) -> Iterator[None]:
    """A guest of host-b takes all but 100 MiB."""
    paused(far, "filler", int(sh(far, "xl info free_memory")) - 100)
    try:
        yield
    finally:
        sh(far, "xl destroy filler; :")


@contextmanager
def other_cd(near: Node, far: Node) -> Iterator[None]:
    """host-b has another file under the name of the guest's CD, which is not replaced."""
    sh(far, f"mv {_CD} {_CD}.away; echo other >{_CD}")
    try:
        yield
    finally:
        sh(far, f"mv {_CD}.away {_CD}")


@contextmanager
def name_taken(near: Node, far: Node) -> Iterator[None]:
    """Another guest of host-b has the name of one that was just arriving."""
    paused(far, "g1--incoming", 96)
    try:
        yield
    finally:
        sh(far, "xl destroy g1--incoming; :")


@contextmanager
def disk_full(near: Node, far: Node) -> Iterator[None]:
    sh(far, "mkdir -p /mnt/small; mount -t tmpfs -o size=2m none /mnt/small")
    try:
        with configured((far,), 'paths = { "/srv/guests/g1.img" = "/mnt/small/g1.img" }\n'):
            yield
    finally:
        sh(far, "umount /mnt/small")


Fault = Callable[[Node, Node], Any]
FAULTS: dict[str, tuple[Fault, str]] = {
    "bridges": (no_bridge, "no bridge xlchk0"),
    "memory": (little_memory, "which needs"),
    "target": (other_cd, _CD),
    "name": (name_taken, "g1--incoming"),
    "room": (disk_full, "/mnt/small/g1.img"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refused_before_xl_is_started(xen_lab: Lab, guest: Guest, name: str) -> None:
    near, far = hosts(xen_lab)
    make, words = FAULTS[name]
    with make(near, far):
        refused = results(planned(near, far), "refuse")
        assert list(refused) == [name] and words in refused[name], refused
        move = Move(near, ["xenplugin", "migrate", "--log-json", "g1", far.name])
        code, _ = move.end()
        events = move.events()
        assert code == 15 and words in events[-1]["error"] and events[-1]["hint"], events
        assert not [event for event in events if event["event"] in ("phase", "xl", "linked")], events
        assert [(one.name, one.suspended) for one in domains(near)] == [("g1", False)]
        assert clean(near) == clean(far) == []
    assert planned(near, far)["outcome"] == "planned" and guest.home().node.name == near.name


def test_a_pci_device_keeps_the_guest_here(xen_lab: Lab, guest: Guest) -> None:
    """Xen cannot follow what a device writes. An emulated host without IOMMU may give one to a PV guest only."""
    near, far = hosts(xen_lab)
    device = sh(near, "lspci -D -n 2>/dev/null | awk '/ 0c05: / { print $1 }'").strip() or "0000:00:1f.3"
    attach = f"modprobe xen-pciback; xl pci-assignable-add {device} && xl pci-attach g1 {device}"
    attached = near.run(["sh", "-c", attach], timeout=START)
    print(attached.error_text)
    try:
        found = results(planned(near, far), "refuse")
        if attached.code == 0:
            assert device in found["devices"]
        else:  # Xen refuses to give it away: the configuration with it is refused as well
            assert "devices" not in found
            text = f"pci=[{device!r}]\ndisk=[{_DISK!r}, {_DRIVE!r}]\n"
            near.check(["sh", "-c", "cat /srv/guests/g1.cfg - >/run/pci.cfg"], text, timeout=ASK)
            done = near.run(["xenplugin", "plan", "--json", "-C", "/run/pci.cfg", "g1", far.name], timeout=ASK)
            assert device in results(json.loads(done.stdout), "refuse")["devices"]
    finally:
        sh(near, f"xl pci-detach g1 {device}; xl pci-assignable-remove {device}; rm -f /run/pci.cfg; :")


def test_a_pv_guest_needs_shadow_paging(xen_lab: Lab, guest: Guest) -> None:
    """Whether this Xen has it is seen before: what `plan` says is what xl would find out."""
    near, far = hosts(xen_lab)
    has = "shadow" in sh(near, "xl info virt_caps").split()
    paused(near, "pv1", 128, "pv")
    try:
        plan = planned(near, far, "pv1")
        if has:
            assert "guest-type" in results(plan, "pass") and plan["outcome"] == "planned", plan
        else:
            assert "shadow paging" in results(plan, "refuse")["guest-type"]
        assert "guest-state" in results(plan, "warn")  # it is paused
    finally:
        sh(near, "xl destroy pv1; :")


def test_through_the_shim_a_refusal_stands_alone(xen_lab: Lab, guest: Guest) -> None:
    near, far = hosts(xen_lab)
    near.check(["xenplugin", "enable"], timeout=ASK)
    try:
        with other_cd(near, far):
            done = near.run(["xl", "migrate", "g1", far.name], timeout=ASK)
        said = done.stderr.splitlines()
        assert done.code == 1 and len(said) == 2 and _CD in said[0] and "xenplugin: hint" in said[1], said
    finally:
        near.check(["xenplugin", "disable"], timeout=ASK)
    assert guest.home().node.name == near.name


def test_what_passes_moves_over_the_same_login(xen_lab: Lab, guest: Guest) -> None:
    near, far = hosts(xen_lab)
    from_near = f"journalctl -u ssh -o cat | grep -c 'Accepted publickey .* from {HOST_A.nics[0].address} ' || :"
    before = int(sh(far, from_near))
    moved(near, far, "g1")
    assert int(sh(far, from_near)) - before == 1
    guest.check_whole()
    assert clean(near) == clean(far) == []
