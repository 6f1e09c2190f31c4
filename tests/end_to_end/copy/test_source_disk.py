"""Sources that fail, are in use, or change under our hands."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.end_to_end.copy.conftest import HELD, Attach, refused
from tests.helpers.images import MIB, content, dense_image, names_in


@pytest.mark.root
def test_a_source_that_cannot_be_read(sides: Sides, image: Path, loop_device: Attach) -> None:
    """A loop device whose file was cut: reads beyond give EIO."""
    device = loop_device(image)
    os.truncate(image, 2 * MIB + 4096)
    sides.target.write_bytes(b"old content")
    done = sides.copy(device, code=13)
    assert "cannot read" in done.error and "at byte" in done.error and str(device) in done.error
    assert content(sides.target) == b"old content"
    sides.assert_clean()


@pytest.mark.root
def test_a_source_that_is_mounted(sides: Sides, tmp_path: Path, loop_device: Attach) -> None:
    """What is still in the file system's cache would be missing: refused, by its file too. Read-only it goes."""
    image = tmp_path / "fs.img"
    image.write_bytes(bytes(4 * MIB))
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    device = loop_device(image)
    mount = sides.folder / "mnt"
    mount.mkdir()
    subprocess.run(["mount", device, mount], check=True)
    try:
        for source in (device, image):
            refused(sides, source, "may be written to", f"mounted at {mount}", "snapshot")
            done = sides.program.run("seal", "--key-file", "key", source, "sealed", code=15)
            assert f"mounted at {mount}" in done.error
            assert not {"key", "sealed"} & names_in(sides.folder)
        (mount / "file").write_bytes(b"just written")
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        sides.copy(device)
    finally:
        subprocess.run(["umount", mount], check=True)
    assert content(sides.target) == content(image)
    subprocess.run(["fsck.ext4", "-fn", sides.target], check=True, capture_output=True)


def test_a_source_that_a_program_writes_to(sides: Sides, image: Path) -> None:
    with open(image, "r+b"):
        refused(sides, image, "may be written to", f"process {os.getpid()}", "for writing")
    sides.copy(image)


@pytest.fixture
def long_image(tmp_path: Path) -> Path:
    """Longer than what is read ahead of the sending: there is something left to be changed."""
    return dense_image(tmp_path / "long.img", 144)


def test_a_source_that_shrinks(sides: Sides, long_image: Path) -> None:
    sides.target.write_bytes(b"old content")
    running = sides.start(long_image, "--rate", "20mbit", "--streams", "1")
    running.await_sent(MIB)
    with running.stopped():
        os.truncate(long_image, 55 * MIB)
    done = running.end()
    assert done.code == 13 and "shorter" in done.error and done.hint
    assert content(sides.target) == b"old content"
    sides.assert_clean()


def test_a_source_that_changes(sides: Sides, image: Path) -> None:
    sides.target.write_bytes(b"old content")
    running = sides.start(image, *HELD)
    running.await_sent(MIB)
    with running.stopped(), open(image, "r+b") as file:
        file.write(b"written to meanwhile")
    done = running.end()
    assert done.code == 13 and "changed while it was copied" in done.error and done.hint
    assert content(sides.target) == b"old content"
    sides.assert_clean()


@pytest.mark.parametrize("then", [os.link, os.rename])
def test_a_source_that_gets_another_name(sides: Sides, image: Path, then: Callable[[Path, Path], None]) -> None:
    """A hard link as a snapshot, a rename: the content is what it was."""
    before = content(image)
    running = sides.start(image, *HELD)
    running.await_sent(MIB)
    with running.stopped():
        then(image, sides.folder / "snapshot.img")
    assert running.end().code == 0
    assert content(sides.target) == before
    sides.assert_clean()


@pytest.mark.root
def test_a_source_device_that_changes(sides: Sides, image: Path, loop_device: Attach) -> None:
    device = loop_device(image)
    running = sides.start(device, *HELD)
    running.await_sent(MIB)
    with running.stopped(), open(device, "r+b") as file:
        file.write(b"written to meanwhile")
    done = running.end()
    assert done.code == 13 and "changed while it was copied" in done.error and done.hint
    assert not sides.target.exists()
    sides.assert_clean()


@pytest.mark.slow
def test_a_source_that_grows(sides: Sides, image: Path) -> None:
    running = sides.start(image, *HELD)
    running.await_sent(MIB)
    with running.stopped():
        os.truncate(image, 9 * MIB)
    done = running.end()
    assert done.code == 13
    assert not sides.target.exists()
    sides.assert_clean()
