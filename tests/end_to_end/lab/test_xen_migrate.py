"""Guests move on real Xen with their disks: there and back, in every mode, by every way to ask for it.

One guest of 128 MiB goes from host to host through all tests of this module, so each begins where the one before
has left it, and each is also the migration after the others. Two connections are enough for a link without delay,
and on emulated CPUs the threads of more cost more than they bring; a far side that is slow for want of CPU looks
like a slow link, so that the level would grow, and cost both hosts' CPUs more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lab.hosts.lab import Lab
from lab.hosts.provider.base import Node
from lab.measure.ways import WAYS
from lab.measure.xen.hosts import measure
from tests.helpers.xen_moves import MOVE, Guest, Move, clean, hosts, migrate, moved

pytestmark = [pytest.mark.lab, pytest.mark.slow]
FEW = ("--streams", "2", "--level", "1")
VERIFY = "PYTHONPATH=/usr/lib/xen-4.17/lib/python /usr/lib/xen-4.17/bin/verify-stream-v2"


@pytest.fixture(scope="module")
def guest(xen_lab: Lab) -> Iterator[Guest]:
    """g1, running on host-a; host-b has nothing of its disk."""
    made = Guest(xen_lab, "g1", ["memory=128"])
    made.create(hosts(xen_lab)[0])
    forget_disk(hosts(xen_lab)[1], made)
    yield made
    made.destroy()


def forget_disk(node: Node, guest: Guest) -> None:
    """Remove whatever `node` has of the guest's disk."""
    node.check(["sh", "-c", 'rm -f "$1" "${1%/*}/.${1##*/}.xenplugin-"*', "sh", guest.disk])


def way(guest: Guest) -> tuple[Node, Node]:
    """Where it runs, and the other host."""
    here = guest.home().node
    return here, next(node for node in hosts(guest.lab) if node.name != here.name)


def arrived(guest: Guest, target: Node) -> None:
    """It runs there and only there, is whole, and neither host has anything left of the migration."""
    assert guest.home().node.name == target.name
    guest.check_whole()
    for node in hosts(guest.lab):
        assert clean(node) == []
        assert "nothing runs, and nothing was left behind" in node.check(["xenplugin", "status"], timeout=120)


def there(guest: Guest, *options: str) -> dict[str, Any]:
    """The result of moving it to the other host, where it arrives."""
    source, target = way(guest)
    result = moved(source, target, guest.name, *FEW, *options)
    arrived(guest, target)
    return result


def test_there_and_back(guest: Guest) -> None:
    """The second time only a difference moves. Its writes are watched, not guessed by comparing."""
    source, target = way(guest)
    move = migrate(source, target, guest.name, *FEW)
    code, said = move.end()
    assert code == 0, said
    notices = [event["text"] for event in move.events() if event["event"] == "notice"]
    assert not [text for text in notices if "cannot be watched" in text]
    assert [event["name"] for event in move.events() if event["event"] == "phase"][-1] == "done"
    arrived(guest, target)
    back = there(guest)
    assert back["disks"][0]["bytes_wire"] < back["disks"][0]["bytes_image"] / 100
    assert back["mode"] == "live" and back["downtime"] > 0


def test_a_busy_guest(guest: Guest) -> None:
    """What it writes to its disk and memory meanwhile arrives: it looks itself, eight seconds later."""
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
        assert result["disks"][0]["bytes_wire"] > 50e6  # what the disk holds, not compressed


def test_by_hand(guest: Guest) -> None:
    source, target = way(guest)
    code, said = Move(source, ["xl", "migrate", "-s", "xenplugin transport", guest.name, target.name]).end()
    assert code == 0, said
    arrived(guest, target)


def test_enabled_and_disabled(guest: Guest) -> None:
    """Plain `xl migrate` takes the disk along once it is enabled, and not any more afterwards."""
    source, target = way(guest)
    forget_disk(target, guest)
    source.check(["xenplugin", "enable"], timeout=120)
    try:
        code, said = Move(source, ["sh", "-lc", f"xl migrate {guest.name} {target.name}"]).end()
        assert code == 0, said
        arrived(guest, target)
    finally:
        source.check(["xenplugin", "disable"], timeout=120)
    source, target = way(guest)
    forget_disk(target, guest)
    move = Move(source, ["sh", "-lc", f"xl migrate {guest.name} {target.name}"])
    code, said = move.end()
    assert code != 0
    assert guest.home().node.name == source.name
    guest.check_whole()


def test_downtime_beside_plain_xl(xen_lab: Lab, guest: Guest) -> None:
    """The same guest (256 MiB) by plain xl, whose disk was copied before, and by the plugin with its disk."""
    guest.destroy()
    plain, ours = (measure(WAYS[name], xen_lab, print).figures for name in ("existing", "live"))
    assert plain is not None and ours is not None and ours.result is not None
    for name, figures in (("xl migrate", plain), ("xenplugin", ours)):
        print(f"{name}: {figures.seconds} s, downtime {figures.downtime} s")
    print(f"its phases: {ours.phases}, downtime as the transport saw it {ours.result['downtime']}")
    assert plain.downtime and ours.downtime
    guest.create(hosts(xen_lab)[0])


def test_a_logical_volume(xen_lab: Lab, guest: Guest) -> None:
    """g2, whose disk is a volume on both hosts, there and back; its writes are watched as well."""
    a, b = hosts(xen_lab)
    for node in (a, b):
        node.check(["xenlab-guest", "lvm"], timeout=300)
    volume = Guest(xen_lab, "g2", ["memory=128"])
    volume.create(a)
    try:
        volume.say("disk 200")
        for source, target in ((a, b), (b, a)):
            move = migrate(source, target, "g2", *FEW)
            code, said = move.end()
            assert code == 0, said
            assert not [event for event in move.events() if "cannot be watched" in str(event.get("text"))]
            arrived(volume, target)
    finally:
        volume.destroy()


def test_what_comes_out_is_what_went_in(guest: Guest) -> None:
    """Xen's own verifier finds nothing wrong with the stream before and behind the plugin, byte for byte one."""
    source, target = way(guest)
    folder = "/root/recorded"
    before = (
        f"#!/bin/sh\ntee {folder}/in | xenplugin transport {' '.join(FEW)} --remote-program {folder}/far"
        + ' "$@"\n'
    )
    far = f'#!/bin/sh\nPATH={folder}:/usr/sbin:/usr/bin exec xenplugin "$@"\n'
    # It takes xl's place only for the migration; its status is xl's own business there.
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
        sums = []
        for node, name in ((source, "in"), (target, "out")):
            node.check(["sh", "-c", f"{VERIFY} -f xl -i {folder}/{name}"], timeout=MOVE)
            sums.append(node.check(["sh", "-c", f"sha256sum <{folder}/{name}"], timeout=MOVE))
        assert sums[0] == sums[1]
    finally:
        for node in (source, target):
            node.check(["rm", "-rf", folder])
    arrived(guest, target)


def test_pvh(xen_lab: Lab) -> None:
    """g3, hardware virtualised."""
    a, b = hosts(xen_lab)
    hvm = Guest(xen_lab, "g3", ["memory=128"])
    try:
        hvm.create(a)
        forget_disk(b, hvm)
        moved(a, b, "g3", *FEW)
        arrived(hvm, b)
    finally:
        hvm.destroy()
