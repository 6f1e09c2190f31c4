"""What a disk is on this host: all names of one disk have something in common, those of two have nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers.image_kit import loop_device, needs_root
from xenplugin.image.safety import local_identity
from xenplugin.image.safety.local_identity import overlapping, own


def same(one: Path, other: Path) -> bool:
    found = bool(overlapping(str(one)) & own(str(other)))
    assert found is bool(own(str(one)) & overlapping(str(other))), "it does not matter which of the two is claimed"
    return found


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / "disk.img"
    path.write_bytes(bytes(4096))
    return path


def test_all_names_of_a_file(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "soft").symlink_to(disk)
    os.link(disk, tmp_path / "hard")
    (tmp_path / "folder").symlink_to(disk.parent)
    for name in (disk, tmp_path / "soft", tmp_path / "hard", tmp_path / "folder" / "disk.img"):
        assert same(disk, name) and same(name, disk)
    disk.with_name("other").write_bytes(bytes(4096))
    assert not same(disk, disk.with_name("other")) and not same(disk, tmp_path / "there" / "new")


def test_a_name_stays_when_the_file_is_replaced(disk: Path) -> None:
    before = own(str(disk))
    disk.with_name("new").write_bytes(b"")
    os.replace(disk.with_name("new"), disk)
    assert before & overlapping(str(disk))
    disk.unlink()
    assert before & overlapping(str(disk)), "also while it is missing"


def test_a_name_in_a_folder_that_is_missing(tmp_path: Path) -> None:
    assert own(str(tmp_path / "no" / "disk")) == set() == overlapping(str(tmp_path / "no" / "disk"))
    assert own("/odd\0name") == set()


@pytest.mark.root
@needs_root[1]
def test_a_device_whatever_it_is_called_and_the_file_behind_it(disk: Path, tmp_path: Path) -> None:
    with loop_device(disk) as device:
        os.mknod(tmp_path / "node", 0o60600, os.stat(device).st_rdev)
        for name in (device, tmp_path / "node"):
            assert same(device, name) and same(disk, name) and same(name, disk)


def test_partitions_overlap_their_disk_but_not_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With /sys as it is for a disk 8:0 with two partitions."""
    whole = tmp_path / "block" / "sda"
    for directory, number in ((whole, "8:0"), (whole / "sda1", "8:1"), (whole / "sda2", "8:2")):
        directory.mkdir(parents=True)
        (directory / "dev").write_text(number + "\n")
        if directory is not whole:
            (directory / "partition").write_text(number[-1])
        (tmp_path / number).symlink_to(directory)
    monkeypatch.setattr(local_identity, "_sysfs", lambda rdev: f"{tmp_path}/{os.major(rdev)}:{os.minor(rdev)}")
    real = os.stat

    def stat(path: str, **more: object) -> object:
        number = {"/dev/sda": 0, "/dev/sda1": 1, "/dev/sda2": 2}.get(str(path))
        if number is None:
            return real(path, **more)  # type: ignore[arg-type]
        return type("Status", (), {"st_rdev": os.makedev(8, number)})

    monkeypatch.setattr(os, "stat", stat)
    disk, one, two = Path("/dev/sda"), Path("/dev/sda1"), Path("/dev/sda2")
    assert same(disk, one) and same(one, disk) and same(disk, two) and same(two, two)
    assert not same(one, two)
