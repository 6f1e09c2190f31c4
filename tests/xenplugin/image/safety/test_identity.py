"""Disk identifiers, on trees that look like /sys of hosts that share storage, and of hosts that do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xenplugin.image.safety.identity import Identity, _Names, overlap

LUN = "naa.600140512345678901234567890abcde"
LV = "LVM-AbCdEfGhIjKlMnOpQrStUvWxYz012345" + "a" * 32
OTHER_LV = "LVM-AbCdEfGhIjKlMnOpQrStUvWxYz012345" + "b" * 32


class Host:
    """/sys and /dev of a host. Device numbers and names differ from host to host."""

    def __init__(self, folder: Path, boot: str) -> None:
        self.sys, self.dev = folder / "sys", folder / "dev"
        self.boot = boot
        self._numbers: dict[str, int] = {}

    def device(self, name: str, under: str = "block", slaves: tuple[str, ...] = (), **files: str) -> None:
        """Add a device `name` with the files of its folder in sysfs (`dm__uuid` is dm/uuid)."""
        folder = self.sys / under / name
        self._numbers[name] = os.makedev(8, 16 * len(self._numbers) + (1 if self.boot == "b" else 5))
        number = f"{os.major(self._numbers[name])}:{os.minor(self._numbers[name])}"
        for file, text in {"dev": number, **files}.items():
            path = folder / file.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        for slave in slaves:
            (folder / "slaves").mkdir(exist_ok=True)
            (folder / "slaves" / slave).symlink_to(self.sys / "block" / slave)
        links = self.sys / "dev/block"
        links.mkdir(parents=True, exist_ok=True)
        (links / number).symlink_to(folder)

    def partition(self, disk: str, number: int) -> None:
        self.device(f"{disk}{number}", under=f"block/{disk}", partition=str(number))

    def ceph(self, number: int, cluster: str, image: str, pool: str = "2", space: str = "") -> None:
        self.device(f"rbd{number}")
        folder = self.sys / f"bus/rbd/devices/{number}"
        folder.mkdir(parents=True)
        for file, text in (("cluster_fsid", cluster), ("pool_id", pool), ("image_id", image), ("pool_ns", space)):
            (folder / file).write_text(text + "\n")

    def drbd(self, minor: int, link: str) -> None:
        self.device(f"drbd{minor}")
        path = self.dev / "drbd/by-res" / link
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(f"../../../drbd{minor}")

    def __getitem__(self, name: str) -> Identity:
        names = _Names(lambda path: [f"file {path}"], self.sys, self.dev)
        names._boot = self.boot
        return names.of_device(self._numbers[name])


@pytest.fixture
def a(tmp_path: Path) -> Host:
    return Host(tmp_path / "a", "a")


@pytest.fixture
def b(tmp_path: Path) -> Host:
    return Host(tmp_path / "b", "b")


def test_a_lun_is_the_same_from_both_hosts(a: Host, b: Host) -> None:
    a.device("sdb", device__wwid=LUN)
    b.device("sdx", device__wwid=LUN)
    assert overlap(a["sdb"], b["sdx"]) == f"wwid {LUN}"


def test_other_luns_are_other_disks(a: Host, b: Host) -> None:
    a.device("sdb", device__wwid=LUN)
    b.device("sdb", device__wwid=LUN[:-1] + "f")
    assert overlap(a["sdb"], b["sdb"]) is None
    assert a["sdb"].known and b["sdb"].known


def test_a_multipath_device_is_each_of_its_paths(a: Host, b: Host) -> None:
    for path in ("sdb", "sdc"):
        a.device(path, device__wwid=LUN)
    a.device("dm-0", slaves=("sdb", "sdc"), dm__uuid=f"mpath-3{LUN[4:]}")
    b.device("sdb", device__wwid=LUN)
    assert overlap(a["dm-0"], b["sdb"])
    assert overlap(b["sdb"], a["dm-0"])


def volumes(host: Host, *uuids: str, lun: str = LUN) -> None:
    host.device("sda", device__wwid=lun)
    for number, uuid in enumerate(uuids):
        host.device(f"dm-{number}", slaves=("sda",), dm__uuid=uuid)


def test_a_volume_of_a_shared_group(a: Host, b: Host) -> None:
    volumes(a, LV)
    volumes(b, OTHER_LV, LV)
    assert overlap(a["dm-0"], b["dm-1"]) == f"dm {LV}"


def test_two_volumes_on_one_lun_are_two_disks(a: Host, b: Host) -> None:
    volumes(a, LV, OTHER_LV)
    volumes(b, LV, OTHER_LV)
    assert overlap(a["dm-0"], b["dm-1"]) is None


def test_a_volume_and_the_lun_that_it_lies_on_overlap(a: Host, b: Host) -> None:
    volumes(a, LV)
    b.device("sdz", device__wwid=LUN)
    assert overlap(a["dm-0"], b["sdz"]) == overlap(b["sdz"], a["dm-0"]) == f"wwid {LUN}"


def test_partitions_are_their_disk_and_number(a: Host, b: Host) -> None:
    for host in (a, b):
        host.device("sdb", device__wwid=LUN)
        host.partition("sdb", 1)
        host.partition("sdb", 2)
    assert overlap(a["sdb1"], b["sdb1"]) == f"wwid {LUN} part 1"
    assert overlap(a["sdb1"], b["sdb2"]) is None
    assert overlap(a["sdb"], b["sdb2"]) and overlap(a["sdb2"], b["sdb"])


def test_a_partition_mapped_by_kpartx(a: Host, b: Host) -> None:
    a.device("sdb", device__wwid=LUN)
    a.device("dm-0", slaves=("sdb",), dm__uuid=f"mpath-3{LUN[4:]}")
    a.device("dm-1", slaves=("dm-0",), dm__uuid=f"part1-mpath-3{LUN[4:]}")
    b.device("sdb", device__wwid=LUN)
    b.partition("sdb", 1)
    b.partition("sdb", 2)
    assert overlap(a["dm-1"], b["sdb1"]) and not overlap(a["dm-1"], b["sdb2"])


def test_an_encrypted_device_has_another_name_on_each_host(a: Host, b: Host) -> None:
    for host, name in ((a, "guest"), (b, "incoming")):
        host.device("sda", device__wwid=LUN)
        host.device("dm-0", slaves=("sda",), dm__uuid=f"CRYPT-LUKS2-{'0' * 31}1-{name}")
        host.device("dm-1", slaves=("sda",), dm__uuid=f"CRYPT-PLAIN-{name}")
    assert overlap(a["dm-0"], b["dm-0"]) == f"dm CRYPT-LUKS2-{'0' * 31}1"
    assert overlap(a["dm-1"], b["dm-1"]) == f"wwid {LUN} mapped"


def test_other_kinds_of_devices_have_names(a: Host, b: Host) -> None:
    for host in (a, b):
        host.device("nvme0n1", wwid="eui.0025385b71b00001")
        host.device("md0", md__uuid="1234:5678:9abc:def0")
        host.device("vdb", serial="guest-7")
        host.ceph(len(host.boot), "c0ffee", "1234abcd")
        host.drbd(3, "r0/0")
    names = [overlap(a[name], b[name]) for name in ("nvme0n1", "md0", "vdb", "rbd1", "drbd3")]
    assert names == [
        "wwid eui.0025385b71b00001", "md 1234:5678:9abc:def0", "serial guest-7",
        "rbd c0ffee 2//1234abcd", "drbd r0/0",
    ]  # fmt: skip


def test_ceph_images_of_other_clusters_pools_and_spaces(a: Host, b: Host) -> None:
    a.ceph(0, "c0ffee", "1")
    for number, other in enumerate((("other", "1", "2", ""), ("c0ffee", "1", "3", ""), ("c0ffee", "1", "2", "x"))):
        b.ceph(number, *other)
        assert overlap(a["rbd0"], b[f"rbd{number}"]) is None


def test_the_link_of_an_old_drbd_has_no_volume(a: Host, b: Host) -> None:
    a.drbd(0, "r0")
    b.drbd(1, "r0/0")
    b.drbd(2, "r0/1")
    assert overlap(a["drbd0"], b["drbd1"]) == "drbd r0/0"
    assert overlap(a["drbd0"], b["drbd2"]) is None


def test_raid_over_luns_is_known_by_itself_and_by_what_it_lies_on(a: Host, b: Host) -> None:
    a.device("sda", device__wwid=LUN)
    a.device("sdb", device__wwid=LUN[:-1] + "0")
    a.device("md0", slaves=("sda", "sdb"), md__uuid="1:2:3:4")
    b.device("sdq", device__wwid=LUN)
    assert overlap(a["md0"], b["sdq"])


def test_a_loop_device_is_its_file(a: Host, b: Host) -> None:
    a.device("loop0", loop__backing_file="/nfs/g1.img")
    b.device("loop5", loop__backing_file="/nfs/g1.img")
    b.device("loop6", loop__backing_file="/nfs/g2.img")
    b.partition("loop5", 1)
    assert overlap(a["loop0"], b["loop5"]) == "file /nfs/g1.img"
    assert overlap(a["loop0"], b["loop6"]) is None and b["loop6"].known
    assert overlap(a["loop0"], b["loop51"]) == "file /nfs/g1.img"


@pytest.mark.parametrize(
    "wwid",
    ["t10.ATA     QEMU HARDDISK                           QM00002", "naa.0000000000000000", "",
     "t10.QEMU    QEMU HARDDISK   drive-scsi0-0-0-1"],
)  # fmt: skip
def test_names_that_every_machine_has_identify_nothing(a: Host, b: Host, wwid: str) -> None:
    for host in (a, b):
        host.device("sda", device__wwid=wwid)
    assert overlap(a["sda"], b["sda"]) is None
    assert not a["sda"].known


def test_on_one_machine_device_numbers_identify_a_disk(a: Host) -> None:
    a.device("vda")
    a.device("vdb")
    assert overlap(a["vda"], a["vda"]) and not overlap(a["vda"], a["vdb"])
    assert not a["vda"].known


def test_equal_device_numbers_on_two_machines_identify_nothing(a: Host, b: Host, tmp_path: Path) -> None:
    a.device("vda")
    twin = Host(tmp_path / "c", "c")
    twin.device("vda")
    assert overlap(a["vda"], twin["vda"]) is None


def test_devices_that_lie_on_each_other_in_a_circle_end(a: Host) -> None:
    a.device("dm-0", slaves=("dm-1",))
    a.device("dm-1", slaves=("dm-0",), dm__uuid="x")
    assert "dm x" in a["dm-0"].below


def test_names_are_few_and_short(a: Host) -> None:
    slaves = tuple(f"sd{number}" for number in range(300))
    for slave in slaves:
        a.device(slave, device__wwid=slave * 90 + "\u00e9")
    a.device("dm-0", slaves=slaves, dm__uuid="LVM-" + "x" * 500)
    found = a["dm-0"]
    assert len(found.own) + len(found.below) <= 128
    assert all(len(name) <= 96 and name.isascii() for name in (*found.own, *found.below))
