"""Guests of each type, with a disk of each kind, on real Xen: there while they write, and back.

A guest writes to its disks, and syncs, until it is suspended. To see that the last write is there, it is left
paused at the destination (`xl migrate -p`): its disks there must hold, byte for byte, what those hold that it left
behind. Then it runs on and checks itself, and goes back by the plugin's own command.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from lab.errors import CheckError
from lab.hosts.guest.guest_type import NO_PV, GuestType
from lab.hosts.interface import Node
from lab.hosts.lifecycle.lab import Lab
from lab.hosts.role import xenhost
from tests.helpers.xen_moves import ASK, FEW, START, Guest, Move, clean, hosts, left_over, migrate, moved
from tests.helpers.xen_settings import configured, sh

pytestmark = [pytest.mark.lab, pytest.mark.slow]
GUESTS = {GuestType.PV: "g1", GuestType.PVH: "g3", GuestType.HVM: "g4"}
#: xl's format -> QEMU's.
FORMATS = {"raw": "raw", "qcow2": "qcow2", "vhd": "vpc"}
VOLUME = "/dev/xenlab/g2"
_FOLDER = "/srv/guests/formats"
# Prints the digest of what the image $2 of the format $1 holds; a deactivated volume is activated for that.
_DIGEST = f"""
set -e
case "$2" in /dev/*) lvchange -q -ay "$2" ;; esac
qemu-img convert -q -U -f "$1" -O raw "$2" {_FOLDER}/held
sha256sum <{_FOLDER}/held
rm {_FOLDER}/held
"""
_CLEAN = f"""
rm -rf {_FOLDER}
if vgs xenlab >/dev/null 2>&1; then lvremove -qfy xenlab >/dev/null; fi
grep -lsF -e '"path": "{_FOLDER}/' -e '"path": "{VOLUME}"' /var/lib/xen/xenplugin/left/*.json | xargs -r rm
mkdir {_FOLDER}
"""


class Disks:
    """The disks of a guest: path -> format as xl calls it, in the order xvda, xvdb ..."""

    def __init__(self, **formats: str) -> None:
        self.formats = {(VOLUME if name == "volume" else f"{_FOLDER}/{name}"): of for name, of in formats.items()}

    def words(self, *further: str) -> str:
        """The line of a guest's configuration. xvdd is free: it would be hdd, the CD drive, to an HVM guest."""
        found = [
            f"format={format},vdev=xvd{letter},access=rw,target={path}"
            for letter, (path, format) in zip("abcefg", self.formats.items(), strict=False)
        ]
        return f"disk={[*found, *further]!r}"

    def make(self, near: Node, far: Node) -> None:
        """Make them on `near`; on `far` only volumes, which must exist."""
        for node in (near, far):
            node.check(["sh", "-c", _CLEAN], timeout=START)
        for path, format in self.formats.items():
            if path == VOLUME:
                _both(near, far, lambda node: node.check(["xenlab-guest", "lvm"], timeout=START))
            else:
                near.check(["xenlab-guest", "image", FORMATS[format], path], timeout=START)

    def held(self, node: Node, *, left: bool = False) -> list[str]:
        """Digests of what they hold on `node`; `left`: of those that were left behind there."""
        aside = {row["path"]: row["aside"] for row in left_over(node) if left}
        words = [(FORMATS[format], aside.get(path, path)) for path, format in self.formats.items()]
        if left and len(aside) < len(words):
            raise CheckError(f"{node.name}: left behind are only {aside}")
        return [node.check(["sh", "-c", _DIGEST, "sh", *each], timeout=START) for each in words]

    def check(self, node: Node) -> None:
        """Have qemu-img check those that it can. (It can no VHD.)"""
        for path, format in self.formats.items():
            if format == "qcow2":
                said = node.check(["qemu-img", "check", "-f", format, path], timeout=START)
                assert "No errors were found" in said, said


def _both(near: Node, far: Node, what: Any) -> list[Any]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(what, (near, far)))


@contextmanager
def running(lab: Lab, kind: GuestType, disks: Disks, *further: str) -> Iterator[Guest]:
    """Start a guest of that type with these disks on host-a. It writes to the first at 300 KiB/s, and a little to
    each other."""
    near, far = hosts(lab)
    if kind is GuestType.PV and xenhost.answering(near).guests is not GuestType.PV:
        pytest.skip(NO_PV)
    guest = Guest(lab, GUESTS[kind], ["memory=128", disks.words(*further)], disk=next(iter(disks.formats)))
    try:
        guest.destroy()
        disks.make(near, far)
        guest.create(near)
        guest.say("disk 300")
        yield guest
    finally:
        guest.destroy()
        for node in (near, far):
            node.run(["sh", "-c", _CLEAN], timeout=START)


def there_and_back(guest: Guest, disks: Disks, there: Disks | None = None) -> None:
    """Move the guest as this module says. All of it, also the disks' writes, is live. `there`: what its disks are
    on the other host, if not the same."""
    near, far = hosts(guest.lab)
    move = Move(near, ["xl", "migrate", "-p", "-s", f"xenplugin transport {' '.join(FEW)}", guest.name, far.name])
    code, said = move.end()
    assert code == 0, (said, near.run(["cat", "/run/xenlab-migrate.jsonl"]).stdout)
    assert "cannot be tracked" not in near.run(["cat", "/run/xenlab-migrate.jsonl"], timeout=ASK).stdout
    left, come = (disks.held(near, left=True), (there or disks).held(far))
    assert left == come
    far.check(["xl", "unpause", guest.name], timeout=ASK)
    guest.check_whole(rounds=3)
    result = moved(far, near, guest.name, *FEW)
    assert result["mode"] == "live"
    for disk in result["disks"]:
        assert disk["bytes_wire"] < disk["bytes_image"] / 50, result
    trace = guest.check_whole(rounds=3)
    print(f"downtimes {sorted(trace.gaps)[-2:]}, result {result}")
    assert guest.home().node.name == near.name
    assert clean(near) == clean(far) == []
    guest.destroy()
    disks.check(near)


CELLS = {
    "qcow2": Disks(qcow2="qcow2"),
    "vhd": Disks(vhd="vhd"),
    "file": Disks(raw="raw"),
    "volume": Disks(volume="raw"),
}


@pytest.mark.parametrize("kind", [GuestType.HVM, GuestType.PVH, GuestType.PV])
@pytest.mark.parametrize("disk", CELLS)
def test_there_and_back(xen_lab: Lab, disk: str, kind: GuestType) -> None:
    with running(xen_lab, kind, CELLS[disk]) as guest:
        there_and_back(guest, CELLS[disk])


def test_a_qcow2_becomes_a_raw_file_and_a_qcow2_again(xen_lab: Lab) -> None:
    near, far = hosts(xen_lab)
    disks = Disks(disk="qcow2")
    with (
        configured([near], 'formats = { "raw" = "qcow2" }'),
        configured([far], 'formats = { "qcow2" = "raw" }'),
        running(xen_lab, GuestType.HVM, disks) as guest,
    ):
        there_and_back(guest, disks, Disks(disk="raw"))


def test_a_qcow2_becomes_a_volume_and_a_qcow2_again(xen_lab: Lab) -> None:
    near, far = hosts(xen_lab)
    disks = CELLS["qcow2"]
    (path,) = disks.formats
    with (
        configured([near], f'paths = {{ "{VOLUME}" = "{path}" }}\nformats = {{ "raw" = "qcow2" }}'),
        configured([far], f'paths = {{ "{path}" = "{VOLUME}" }}'),
        running(xen_lab, GuestType.PVH, disks) as guest,
    ):
        far.check(["xenlab-guest", "lvm"], timeout=START)
        there_and_back(guest, disks, CELLS["volume"])


def test_a_kept_backing_file(xen_lab: Lab) -> None:
    """Both hosts have it: only what lies on it moves."""
    near, far = hosts(xen_lab)
    disks, base = Disks(disk="qcow2"), f"{_FOLDER}/base.qcow2"
    (path,) = disks.formats
    keep = f'backing = "keep"\nbacking_folders = ["{_FOLDER}"]'
    with configured([near, far], keep), running(xen_lab, GuestType.PVH, disks) as guest:
        guest.destroy()
        near.check(["xenlab-guest", "image", "qcow2", base], timeout=START)
        sh(near, f"ssh {far.name} 'mkdir -p {_FOLDER}; cat >{base}' <{base}")
        near.check(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path], timeout=START)
        guest.create(near)
        guest.say("disk 300")
        there_and_back(guest, disks)
        assert f"backing file: {base}" in sh(near, f"qemu-img info {path}")


def test_several_disks_and_a_cd(xen_lab: Lab) -> None:
    """Each is tracked by itself; the CD drive is empty."""
    disks = Disks(first="qcow2", second="raw", third="vhd", volume="raw")
    with running(xen_lab, GuestType.HVM, disks, "format=raw,vdev=hdd,access=ro,devtype=cdrom,target=") as guest:
        there_and_back(guest, disks)


def test_a_guest_that_is_booting_stays_or_arrives_whole(xen_lab: Lab) -> None:
    """If its driver takes the emulated disk away while this is read, the node that was read is out of date: the
    guest stays. If its driver was sooner, it moves."""
    disks = CELLS["qcow2"]
    near, far = hosts(xen_lab)
    with running(xen_lab, GuestType.HVM, disks) as guest:
        guest.destroy()
        guest.forget_console()
        near.check(["xl", "create", "-q", "/srv/guests/g4.cfg", "memory=128", disks.words()], timeout=START)
        move = migrate(near, far, guest.name, *FEW)
        code, _ = move.end()
        last = move.events()[-1]
        assert code == 0 or (code == 15 and "has taken the place of the emulated disk" in last["error"]), last
        guest.await_trace(lambda seen: len(seen.ticks) >= 3, "it does not tick")
        guest.check_whole()
        assert guest.home().node.name == (near if code else far).name
        assert clean(near) == clean(far) == []
