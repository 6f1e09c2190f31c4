"""Sources that something may write to are refused; what only reads is not."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.image_kit import loop_device, needs_root, open_elsewhere, sparse_image
from xenplugin.errors import RefusedError
from xenplugin.geometry import CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.safety import users
from xenplugin.image.safety.users import Use
from xenplugin.image.source.at_rest import open_at_rest


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xenplugin.image.safety.in_use.GRACE", 0.1)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return sparse_image(tmp_path / "disk.img", 8 * CHUNK, [(0, 70000)])


@pytest.fixture
def file_system(image: Path) -> Path:
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    return image


def accepted(path: Path) -> None:
    told: list[str] = []
    open_at_rest(str(path), "raw", notify=told.append).close()
    assert told == []


def refused(path: Path, says: str) -> None:
    with pytest.raises(RefusedError, match=says) as caught:
        open_at_rest(str(path), "raw", notify=lambda _: None)
    assert "may be written to while it is copied" in str(caught.value)
    assert "snapshot" in (caught.value.hint or "")


@contextmanager
def mounted(device: Path, where: Path, *options: str) -> Iterator[None]:
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, str(device), str(where)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(where)], check=True)


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Map the file for writing and close it. (Python's own mmap keeps a descriptor.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    fd = os.open(path, os.O_RDWR)
    size = ctypes.c_size_t(CHUNK)
    address = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, ctypes.c_int64(0))
    os.close(fd)
    assert address != ctypes.c_void_p(-1).value
    try:
        yield
    finally:
        assert libc.munmap(ctypes.c_void_p(address), size) == 0


class TestFile:
    def test_nothing_uses_it(self, image: Path) -> None:
        accepted(image)

    @pytest.mark.parametrize("mode", ["r+b", "ab"])
    def test_open_for_writing(self, image: Path, mode: str) -> None:
        with open_elsewhere(image, mode) as pid:
            refused(image, rf"process {pid} \(.*\) has it open for writing")
        accepted(image)

    def test_open_for_reading(self, image: Path) -> None:
        with open_elsewhere(image, "rb"):
            accepted(image)

    def test_mapped_for_writing(self, image: Path) -> None:
        """Stores to mapped memory need no descriptor, and set no time once a page has been written to."""
        with mapped(image):
            refused(image, "the kernel does not report which")
        accepted(image)


@pytest.mark.root
@needs_root[1]
class TestLoopDevice:
    """The loop device itself, and the file behind it."""

    def test_mounted(self, file_system: Path, tmp_path: Path) -> None:
        where = tmp_path / "ein Mount-Püñkt"
        with loop_device(file_system) as device, mounted(device, where):
            refused(device, f"{device} is mounted at {where}")
            refused(file_system, f"{device} is set up on it and mounted at {where}")

    def test_mounted_read_only(self, file_system: Path, tmp_path: Path) -> None:
        with loop_device(file_system) as device, mounted(device, tmp_path / "mnt", "-o", "ro"):
            accepted(device)
            accepted(file_system)
        with loop_device(file_system) as device, mounted(device, tmp_path / "mnt"):
            subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "mnt")], check=True)
            accepted(device)
            accepted(file_system)

    def test_a_read_only_view_of_what_is_mounted_for_writing(self, file_system: Path, tmp_path: Path) -> None:
        with loop_device(file_system) as device, mounted(device, tmp_path / "mnt"):
            with mounted(tmp_path / "mnt", tmp_path / "view", "-o", "bind"):
                subprocess.run(["mount", "-o", "remount,bind,ro", str(tmp_path / "mnt")], check=True)
                subprocess.run(["mount", "-o", "remount,bind,ro", str(tmp_path / "view")], check=True)
                refused(device, "is mounted at")

    def test_set_up_and_not_used(self, image: Path) -> None:
        with loop_device(image) as device:
            accepted(device)
            accepted(image)
        with loop_device(image, "--read-only") as device:
            accepted(device)
            accepted(image)

    def test_open_for_writing(self, image: Path) -> None:
        with loop_device(image) as device, open_elsewhere(device, "r+b") as pid:
            refused(device, f"process {pid} ")
            refused(image, f"{device} is set up on it, and process {pid} ")

    def test_open_for_reading(self, image: Path) -> None:
        with loop_device(image) as device, open_elsewhere(device, "rb"):
            accepted(device)
            accepted(image)

    def test_the_file_behind_it_is_written_to(self, image: Path) -> None:
        with loop_device(image) as device, open_elsewhere(image, "r+b") as pid:
            refused(device, f"of the file behind it, process {pid} ")
            refused(image, f"process {pid} ")

    def test_another_device_on_the_same_file(self, file_system: Path, tmp_path: Path) -> None:
        with loop_device(file_system) as device, loop_device(file_system, "--read-only") as other:
            with mounted(device, tmp_path / "mnt"):
                refused(other, f"of the file behind it, {device} is set up on it and mounted")

    def test_a_device_above_it(self, file_system: Path, tmp_path: Path) -> None:
        with loop_device(file_system) as device, loop_device(device) as upper:
            accepted(file_system)
            with mounted(upper, tmp_path / "mnt"):
                refused(device, f"{upper} is set up on it and mounted")
                refused(file_system, f"{device} is set up on it, and {upper} is set up on it and mounted")

    def test_swap(self, image: Path) -> None:
        with loop_device(image) as device:
            subprocess.run(["mkswap", str(device)], check=True, capture_output=True)
            subprocess.run(["swapon", str(device)], check=True)
            try:
                refused(device, "is swap space")
                refused(image, f"{device} is set up on it, and {device} is swap space")
            finally:
                subprocess.run(["swapoff", str(device)], check=True)

    def test_a_claim_that_nothing_explains(self, image: Path) -> None:
        """As ZFS has its disks: neither a mount nor a holder, and no program that writes."""
        with loop_device(image) as device:
            claim = os.open(device, os.O_RDONLY | os.O_EXCL)
            try:
                refused(device, "it is claimed, and the kernel does not report by what")
            finally:
                os.close(claim)

    def test_writes_that_are_not_counted(self, image: Path) -> None:
        told: list[str] = []
        with loop_device(image) as device:
            counting = Path(f"/sys/block/{device.name}/queue/iostats")
            counting.write_text("0")
            try:
                open_at_rest(str(device), "raw", notify=told.append).close()
            finally:
                counting.write_text("1")
        assert len(told) == 1 and "does not count writes" in told[0]

    def test_what_is_in_the_cache_of_the_device_arrives(self, image: Path) -> None:
        """A reader keeps the device open, so the writer's end does not write the device's cache to the file."""
        with loop_device(image) as device, open_elsewhere(device, "rb"):
            with open(device, "r+b") as file:
                file.write(b"written just now")
            with open_at_rest(str(image), "raw", notify=lambda _: None) as source:
                assert bytes(source.read(0, Buffer(CHUNK))[:16]) == b"written just now"


class Disks:
    """Block devices as /sys shows them; this kernel may have neither mapped devices nor RAID."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sys = folder / "sys"
        self.by_number = self.sys / "dev" / "block"
        self.by_number.mkdir(parents=True)
        monkeypatch.setattr(users, "_SYS", str(self.sys))
        self.opened: set[int] = set()
        monkeypatch.setattr(users, "openers_of_devices", self._openers)

    def add(
        self, name: str, minor: int, *, on: tuple[str, ...] = (), dm: str = "", md: bool = False, ro: str = "0"
    ) -> int:
        """Add the device 250:`minor`, which lies on others. Returns its number."""
        directory = self.sys / "block" / name
        (directory / "holders").mkdir(parents=True)
        (directory / "dev").write_text(f"250:{minor}\n")
        (directory / "ro").write_text(f"{ro}\n")
        (self.by_number / f"250:{minor}").symlink_to(directory)
        if dm:
            (directory / "dm").mkdir()
            (directory / "dm" / "name").write_text(f"{dm}\n")
        if md:
            (directory / "md").mkdir()
        for below in on:
            (self.sys / "block" / below / "holders" / name).symlink_to(directory)
        return os.makedev(250, minor)

    def _openers(self, numbers: set[int], _own: int = -1) -> Iterator[Use]:
        if numbers & self.opened:
            yield Use("process 77 (qemu) has it open for writing", True)


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disks:
    return Disks(tmp_path, monkeypatch)


class TestDevicesAbove:
    """A disk that is part of mapped devices or RAID is written to if one of these is."""

    def test_a_volume_that_nothing_uses(self, disks: Disks) -> None:
        disk = disks.add("sdz", 1)
        disks.add("dm-7", 7, on=("sdz",), dm="vg-guest")
        assert list(users.uses_of_device(disk)) == [Use("it is part of /dev/mapper/vg-guest", False)]

    def test_a_volume_of_a_thin_pool_that_is_used(self, disks: Disks) -> None:
        disk = disks.add("sdz", 1)
        disks.add("dm-1", 11, on=("sdz",), dm="vg-pool_tdata")
        disks.add("dm-2", 12, on=("dm-1",), dm="vg-pool-tpool")
        top = disks.add("dm-3", 13, on=("dm-2",), dm="vg-guest")
        disks.opened = {top}
        (use,) = users.uses_of_device(disk)
        assert use.writes
        assert use.text.startswith("it is part of /dev/mapper/vg-pool_tdata, and it is part of")
        assert use.text.endswith("vg-guest, and process 77 (qemu) has it open for writing")

    def test_the_volume_itself(self, disks: Disks) -> None:
        """Other volumes of the same disk do not matter to it, nor does its snapshot."""
        disks.add("sdz", 1)
        other = disks.add("dm-1", 11, on=("sdz",), dm="vg-other")
        mine = disks.add("dm-2", 12, on=("sdz",), dm="vg-mine")
        disks.opened = {other}
        assert list(users.uses_of_device(mine)) == []

    def test_raid(self, disks: Disks) -> None:
        disk = disks.add("sdz", 1)
        disks.add("md0", 9, on=("sdz",), md=True)
        assert list(users.uses_of_device(disk)) == [Use("it is part of /dev/md0", True)]
        stopped = disks.add("sdy", 2)
        disks.add("md1", 10, on=("sdy",), md=True, ro="1")
        assert list(users.uses_of_device(stopped)) == [Use("it is part of /dev/md1", False)]

    def test_all_layers_are_written_back(self, disks: Disks) -> None:
        disk = disks.add("sdz", 1)
        middle = disks.add("dm-1", 11, on=("sdz",), dm="vg-a")
        top = disks.add("dm-2", 12, on=("dm-1",), dm="vg-b")
        disks.add("sdy", 2)
        status = os.stat_result((0o060660, 0, 0, 1, 0, 0, 0, 0, 0, 0), {"st_rdev": disk})
        assert users.layers_above(status) == {disk, middle, top}
        assert users.node_of(top) == "/dev/dm-2"
