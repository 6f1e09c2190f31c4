"""Guests are migrated on real Xen with their disks: there and back, in every mode, by each command.

All tests of this module migrate the same guest of 128 MiB, so each begins where the one before has left it. Two
connections are enough for a link without delay; on emulated CPUs the threads of more cost more than they gain. The
level is fixed, because a remote side that lacks CPU time looks like a slow link, and a higher level would cost even
more CPU time on both hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lab.hosts.interface import Node
from lab.hosts.lifecycle.lab import Lab
from lab.measure.ways import WAYS
from lab.measure.xen.hosts import measure
from tests.helpers.xen_moves import FEW, MOVE, Guest, Move, clean, hosts, left_over, migrate, moved, started

pytestmark = [pytest.mark.lab, pytest.mark.slow]
VERIFY = "PYTHONPATH=$(echo /usr/lib/xen-*/lib/python) /usr/lib/xen-*/bin/verify-stream-v2"
# Prints the configuration that the stream $1 begins with (xl's header has 48 bytes, and its length 4), sorted, and
# the digest of libxl's stream, which follows.
CONTENT = """
import hashlib, json, mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
    at = data.find(b"LibxlFmt")
    config, _ = json.JSONDecoder().raw_decode(data[52:at].decode())
    print(json.dumps(config, sort_keys=True), hashlib.sha256(data[at:]).hexdigest())
"""


@pytest.fixture(scope="module")
def guest(xen_lab: Lab) -> Iterator[Guest]:
    """g1, running on host-a, with no copy of its disk on host-b."""
    with started(xen_lab) as made:
        made.forget_disk(hosts(xen_lab)[1])
        yield made


def arrived(guest: Guest, target: Node) -> None:
    """Check that the guest runs only there, is intact, and that nothing of the migration is left on either host but
    its old disk on the other one. (Old disks of other guests may be there.)"""
    assert guest.home().node.name == target.name
    guest.check_whole()
    for node in hosts(guest.lab):
        assert clean(node) == []
        found = [(row["kind"], row["path"]) for row in left_over(node)]
        left = [(kind, path) for kind, path in found if kind != "aside" or path == guest.disk]
        assert left == ([] if node.name == target.name else [("aside", guest.disk)])


def there(guest: Guest, *options: str) -> dict[str, Any]:
    """Migrate the guest to the other host, check it there, and return the result."""
    source, target = guest.sides()
    result = moved(source, target, guest.name, *FEW, *options)
    arrived(guest, target)
    return result


def test_there_and_back(guest: Guest) -> None:
    """The second time only a difference is sent, and writes are found by dirty tracking, not by comparison."""
    source, target = guest.sides()
    move = migrate(source, target, guest.name, *FEW)
    code, said = move.end()
    assert code == 0, said
    notices = [event["text"] for event in move.events() if event["event"] == "notice"]
    assert not [text for text in notices if "cannot be tracked" in text]
    assert [event["name"] for event in move.events() if event["event"] == "phase"][-1] == "done"
    arrived(guest, target)
    back = there(guest)
    assert back["disks"][0]["bytes_wire"] < back["disks"][0]["bytes_image"] / 100
    assert back["mode"] == "live" and back["downtime"] > 0


def test_a_busy_guest(guest: Guest) -> None:
    """What the guest writes to disk and memory during the migration arrives; it checks that after eight seconds."""
    guest.say("disk 500")
    guest.say("memory 300")
    guest.await_trace(lambda seen: seen.rounds >= 2, "it checks nothing")
    result = there(guest)
    assert result["disks"][0]["rounds"] >= 2
    guest.check_whole(rounds=4)
    guest.say("disk 0")
    guest.say("memory 0")


@pytest.mark.parametrize("mode", ["static", "full"])
def test_stopped(guest: Guest, mode: str) -> None:
    result = there(guest, "--mode", mode)
    assert result["mode"] == mode and result["phases"].get("disks") is None
    if mode == "full":
        assert result["disks"][0]["bytes_wire"] > 50e6  # the data on the disk, not compressed


def test_by_hand(guest: Guest) -> None:
    source, target = guest.sides()
    code, said = Move(source, ["xl", "migrate", "-s", "xenplugin transport", guest.name, target.name]).end()
    assert code == 0, said
    arrived(guest, target)


def test_enabled_and_disabled(guest: Guest) -> None:
    """Plain `xl migrate` moves the disk while the plugin is enabled, and not after it is disabled."""
    source, target = guest.sides()
    guest.forget_disk(target)
    source.check(["xenplugin", "enable"], timeout=120)
    try:
        code, said = Move(source, ["sh", "-lc", f"xl migrate {guest.name} {target.name}"]).end()
        assert code == 0, said
        arrived(guest, target)
    finally:
        source.check(["xenplugin", "disable"], timeout=120)
    source, target = guest.sides()
    guest.forget_disk(target)
    move = Move(source, ["sh", "-lc", f"xl migrate {guest.name} {target.name}"])
    code, said = move.end()
    assert code != 0
    assert guest.home().node.name == source.name
    guest.check_whole()


def test_downtime_beside_plain_xl(xen_lab: Lab, guest: Guest) -> None:
    """The same guest (256 MiB) by plain xl, after its disk was copied, and by the plugin with its disk."""
    guest.destroy()
    plain, ours = (measure(WAYS[name], xen_lab, print).figures for name in ("existing", "live"))
    assert plain is not None and ours is not None and ours.result is not None
    for name, figures in (("xl migrate", plain), ("xenplugin", ours)):
        print(f"{name}: {figures.seconds} s, downtime {figures.downtime} s")
    print(f"its phases: {ours.phases}, downtime as the transport saw it {ours.result['downtime']}")
    assert plain.downtime and ours.downtime
    guest.create(hosts(xen_lab)[0])


def test_a_logical_volume(xen_lab: Lab, guest: Guest) -> None:
    """g2, whose disk is a logical volume on both hosts, there and back, with dirty tracking."""
    a, b = hosts(xen_lab)
    for node in (a, b):
        node.check(["xenlab-guest", "lvm"], timeout=300)
    volume = Guest(xen_lab, "g2", ["memory=128"], disk="/dev/xenlab/g2")
    volume.create(a)
    try:
        volume.say("disk 200")
        for source, target in ((a, b), (b, a)):
            move = migrate(source, target, "g2", *FEW)
            code, said = move.end()
            assert code == 0, said
            assert not [event for event in move.events() if "cannot be tracked" in str(event.get("text"))]
            arrived(volume, target)
    finally:
        volume.destroy()


def test_the_stream_that_leaves_the_plugin_is_the_one_that_entered(guest: Guest) -> None:
    """Xen's own verifier accepts the stream before and after the plugin, which are identical but for how the same
    configuration is written."""
    source, target = guest.sides()
    folder = "/root/recorded"
    before = (
        f"#!/bin/sh\ntee {folder}/in | xenplugin transport {' '.join(FEW)} --remote-program {folder}/far"
        + ' "$@"\n'
    )
    far = f'#!/bin/sh\nPATH={folder}:/usr/sbin:/usr/bin exec xenplugin "$@"\n'
    # The plugin replaces only `xl migrate`; other verbs are xl's own.
    behind = f"""#!/bin/sh
case " $* " in
*" migrate-receive "*) tee {folder}/out | /usr/sbin/xl "$@" ;;
*) exec /usr/sbin/xl "$@" ;;
esac
"""
    for node, name, text in ((source, "before", before), (target, "far", far), (target, "xl", behind)):
        node.check(["mkdir", "-p", folder])
        node.put(text.encode(), f"{folder}/{name}", 0o755)
    try:
        code, said = Move(source, ["xl", "migrate", "-s", f"{folder}/before", guest.name, target.name]).end()
        assert code == 0, said
        found = []
        for node, name in ((source, "in"), (target, "out")):
            node.check(["sh", "-c", f"{VERIFY} -f xl -i {folder}/{name}"], timeout=MOVE)
            found.append(node.check(["python3", "-c", CONTENT, f"{folder}/{name}"], timeout=MOVE))
        assert found[0] == found[1]
    finally:
        for node in (source, target):
            node.check(["rm", "-rf", folder])
    arrived(guest, target)


def test_pvh(xen_lab: Lab) -> None:
    """g3, with hardware virtualisation."""
    a, b = hosts(xen_lab)
    hvm = Guest(xen_lab, "g3", ["memory=128"])
    try:
        hvm.create(a)
        hvm.forget_disk(b)
        moved(a, b, "g3", *FEW)
        arrived(hvm, b)
    finally:
        hvm.destroy()
