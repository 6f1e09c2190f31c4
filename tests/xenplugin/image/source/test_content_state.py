"""What shows that an image was written to, and what does not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.image_kit import loop_device, needs_root, sparse_image
from tests.helpers.program import wait_until
from xenplugin.geometry import CHUNK
from xenplugin.image.source.content_state import Change, writes_to
from xenplugin.image.source.raw import open_source
from xenplugin.image.sparse import punch


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = sparse_image(tmp_path / "i", CHUNK, [(0, CHUNK)])
    os.utime(path, ns=(0, 10**18))  # no write of this test falls into the same tick of the kernel's clock
    return path


def write(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"new")


def grow(path: Path) -> None:
    os.truncate(path, CHUNK + 1)


def touch(path: Path) -> None:
    os.utime(path)


@pytest.mark.parametrize("change", [write, grow, touch])
def test_a_change_of_the_content(image: Path, change: Callable[[Path], None]) -> None:
    with open_source(image) as source:
        change(image)
        assert source.change() is Change.CHANGED


def link(path: Path) -> None:
    os.link(path, f"{path}-snapshot")


def change_mode(path: Path) -> None:
    path.chmod(0o640)


def change_group(path: Path) -> None:
    os.chown(path, -1, 5 if os.geteuid() == 0 else os.getegid())


def read(path: Path) -> None:
    path.read_bytes()


@pytest.mark.parametrize("change", [link, change_mode, change_group, read])
def test_what_leaves_the_content_alone(image: Path, change: Callable[[Path], None]) -> None:
    with open_source(image) as source:
        change(image)
        assert source.change() is Change.SAME


def rename(path: Path) -> None:
    path.rename(f"{path}-renamed")


def link_and_unlink(path: Path) -> None:
    link(path)
    os.unlink(f"{path}-snapshot")


def write_and_hide(path: Path) -> None:
    write(path)
    os.utime(path, ns=(0, 10**18))


@pytest.mark.parametrize("change", [rename, link_and_unlink, write_and_hide])
def test_what_only_reading_can_tell_apart(image: Path, change: Callable[[Path], None]) -> None:
    with open_source(image) as source:
        before = image.stat().st_ctime_ns
        wait_until(lambda: time.time_ns() > before + 10**7, "another tick of the clock")
        change(image)
        assert source.change() is Change.UNSURE


@pytest.mark.root
@needs_root[1]
class TestDevice:
    def test_a_write_is_counted(self, tmp_path: Path) -> None:
        with loop_device(sparse_image(tmp_path / "i", CHUNK, [])) as device, open_source(device) as source:
            device.read_bytes()
            assert source.change() is Change.SAME
            with open(device, "r+b") as file:
                file.write(b"x" * 4096)
                file.flush()
                os.fsync(file.fileno())
            assert source.change() is Change.CHANGED

    def test_a_hole_is_counted(self, tmp_path: Path) -> None:
        with (
            loop_device(sparse_image(tmp_path / "i", CHUNK, [(0, CHUNK)])) as device,
            open_source(device) as source,
        ):
            with open(device, "r+b") as file:
                assert punch(file.fileno(), 0, CHUNK)
            assert source.change() is Change.CHANGED

    def test_a_kernel_that_does_not_count(self, tmp_path: Path) -> None:
        with loop_device(sparse_image(tmp_path / "i", CHUNK, [])) as device:
            counting = Path(f"/sys/block/{device.name}/queue/iostats")
            number = device.stat().st_rdev
            assert writes_to(number)
            counting.write_text("0")
            try:
                assert writes_to(number) is None
            finally:
                counting.write_text("1")
