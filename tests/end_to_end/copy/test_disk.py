"""Target disks that are full, in use, too small, or come into use meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.end_to_end.copy.conftest import HELD, Attach, refused
from tests.helpers.images import MIB, content, dense_image, names_in, noise
from tests.helpers.program import Program, wait_until


def test_target_open_by_a_process(sides: Sides, image: Path) -> None:
    sides.target.write_bytes(b"old content")
    with open(sides.target, "rb"):
        refused(sides, image, "in use", str(os.getpid()))
    assert content(sides.target) == b"old content"
    sides.copy(image)


def test_target_larger_than_the_source(sides: Sides, image: Path) -> None:
    sides.target.write_bytes(noise(1, 5 * MIB))
    refused(sides, image, "larger")
    assert content(sides.target) == noise(1, 5 * MIB)


def test_target_is_a_directory(sides: Sides, image: Path) -> None:
    folder = sides.folder / "folder"
    folder.mkdir()
    refused(sides, image, "a directory", target=folder)
    assert names_in(folder) == set()


def test_target_is_a_pipe(sides: Sides, image: Path) -> None:
    pipe = sides.folder / "pipe"
    os.mkfifo(pipe)
    refused(sides, image, "a pipe", target=pipe)


def test_target_without_a_directory(sides: Sides, image: Path) -> None:
    refused(sides, image, "does not exist", "mkdir -p", target=sides.there / "missing" / "disk.img")


def test_target_is_no_device(sides: Sides, image: Path) -> None:
    refused(sides, image, "no block device", target=Path("/dev/vg0/not-there"))


def test_target_is_the_source(sides: Sides, image: Path) -> None:
    before = content(image)
    refused(sides, image, "source disk itself", f"SRC and DST lead to {image}: name another DST", target=image)
    assert content(image) == before


def test_target_through_a_symbolic_link(sides: Sides, image: Path) -> None:
    real = sides.folder / "elsewhere.img"
    real.write_bytes(b"old content")
    sides.target.symlink_to(real)
    sides.copy(image)
    assert sides.target.is_symlink() and content(real) == content(image)
    sides.assert_clean()


@pytest.mark.slow
def test_two_copies_to_one_target(sides: Sides, image: Path) -> None:
    first = sides.start(image, *HELD)
    first.await_sent(MIB)
    with first.stopped():
        done = sides.copy(image, code=15)
    assert "another copy" in done.error
    assert first.end().code == 0
    assert content(sides.target) == content(image)
    sides.assert_clean()


@pytest.mark.slow
def test_a_target_that_comes_into_use_meanwhile(sides: Sides, image: Path) -> None:
    """Somebody writes to the old image while the new one is on its way: his work is not replaced."""
    sides.target.write_bytes(b"old content")
    running = sides.start(image, *HELD)
    running.await_sent(MIB)
    with running.stopped():
        sides.target.write_bytes(b"new work")
    done = running.end()
    assert done.code == 15 and "changed or replaced" in done.error
    assert content(sides.target) == b"new work"


@pytest.mark.slow
def test_a_target_that_appears_meanwhile(sides: Sides, image: Path) -> None:
    running = sides.start(image, *HELD)
    running.await_sent(MIB)
    with running.stopped():
        sides.target.write_bytes(b"new work")
    done = running.end()
    assert done.code == 15 and "created by another program" in done.error
    assert content(sides.target) == b"new work"


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that other users can look into."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.root
def test_a_directory_that_cannot_be_written(public: Path, nobody: list[str]) -> None:
    program = Program(public, os.urandom(8).hex())
    (public / "home").chmod(0o777)
    dense_image(public / "source.img", 1)
    try:
        done = program.run("copy", "source.img", "other.img", prefix=nobody, code=13)
        assert "Permission denied" in done.error and "root" in done.error + done.hint
        done = program.run("seal", "--key-file", "home/key", "source.img", "sealed", prefix=nobody, code=13)
        assert "ermission" in done.error
        (public / "source.img").chmod(0)
        done = program.run("copy", "source.img", "home/other.img", prefix=nobody, code=13)
        assert "Permission denied" in done.error
    finally:
        assert not program.close()
    assert names_in(public) == {"home", "source.img"}


@pytest.mark.root
def test_an_ordinary_user_can_copy_files(public: Path, nobody: list[str]) -> None:
    program = Program(public, os.urandom(8).hex())
    (public / "home").chmod(0o777)
    image = dense_image(public / "source.img", 2)
    try:
        program.run("copy", "source.img", "home/other.img", prefix=nobody)
    finally:
        assert not program.close()
    assert content(public / "home" / "other.img") == content(image)
    assert (public / "home" / "other.img").stat().st_uid == 65534


@pytest.mark.root
def test_target_attached_to_a_loop_device(sides: Sides, image: Path, loop_device: Attach) -> None:
    sides.target.write_bytes(noise(2, MIB))
    device = loop_device(sides.target)
    refused(sides, image, str(device))
    assert content(sides.target) == noise(2, MIB)


@pytest.mark.root
def test_a_full_disk(sides: Sides, tmp_path: Path, small_disk: Callable[[int], Path]) -> None:
    image = dense_image(tmp_path / "large.img", 8)
    disk = small_disk(5)
    (disk / "disk.img").write_bytes(b"old content")
    before = sides.copy(image, code=15, target=disk / "disk.img")
    assert f"the file system of {disk}" in before.error and "free" in before.error
    assert "--force room" in before.hint and names_in(disk) == {"disk.img"}
    estimate = sides.copy(image, "-N", code=15, target=disk / "disk.img")
    assert estimate.error == before.error
    done = sides.copy(image, "--force", "room", code=13, target=disk / "disk.img")
    assert "No space left" in done.error and "kept" not in done.error
    sides.program.await_none()
    assert names_in(disk) == {"disk.img"} and content(disk / "disk.img") == b"old content"
    assert not sides.state.exists() or names_in(sides.state) == set()


@pytest.mark.root
def test_a_disk_that_is_full_already(sides: Sides, image: Path, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(1)
    filler = disk / "filler"
    with pytest.raises(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    sides.copy(image, code=15, target=disk / "disk.img")
    sides.copy(image, "--force", "room", code=13, target=disk / "disk.img")
    assert names_in(disk) == {"filler"}


@pytest.mark.root
def test_an_interrupted_copy_goes_on_although_little_is_free(
    sides: Sides, tmp_path: Path, small_disk: Callable[[int], Path]
) -> None:
    image, disk = dense_image(tmp_path / "large.img", 8), small_disk(9)
    running = sides.program.start(*sides.words(image, "--log-json", "--json", *HELD, target=disk / "disk.img"))
    running.await_sent(2 * MIB)
    running.signal(signal.SIGINT)
    assert running.end(within=20).code == 130
    sides.copy(image, target=disk / "disk.img")
    assert content(disk / "disk.img") == content(image)


# -- block devices -----------------------------------------------------------------------------------


@pytest.mark.root
def test_block_devices_as_source_and_target(sides: Sides, image: Path, loop_device: Attach) -> None:
    source = loop_device(image)
    backing = dense_image(sides.folder / "backing.img", 4, seed=9)
    target = loop_device(backing)
    done = sides.copy(source, target=target)
    subprocess.run(["blockdev", "--flushbufs", target], check=True)
    assert content(backing) == content(image)
    assert done.result["bytes_image"] == 4 * MIB
    again = sides.copy(source, target=target)
    assert again.result["bytes_wire"] < MIB
    sides.assert_clean()


@pytest.mark.root
def test_a_device_of_another_size(sides: Sides, image: Path, loop_device: Attach) -> None:
    for mib, word, hint in ((3, "too small", "a file"), (5, "larger", "--larger-device keep")):
        backing = dense_image(sides.folder / f"backing{mib}.img", mib, seed=9)
        before = content(backing)
        refused(sides, image, word, hint, target=loop_device(backing))
        assert content(backing) == before


@pytest.mark.root
@pytest.mark.parametrize("what", ["keep", "zero"])
def test_a_larger_device(sides: Sides, image: Path, loop_device: Attach, what: str) -> None:
    backing = dense_image(sides.folder / "backing.img", 5, seed=9)
    rest = content(backing)[4 * MIB :]
    device = loop_device(backing)
    sides.far["larger_device"] = "keep" if what == "zero" else "zero"  # for guests only
    sides.copy(image, "--larger-device", what, target=device)
    assert content(backing) == content(image) + (rest if what == "keep" else bytes(MIB))
    sides.assert_clean()


@pytest.mark.root
def test_a_sealed_image_is_opened_to_a_larger_device(sides: Sides, image: Path, loop_device: Attach) -> None:
    backing = dense_image(sides.folder / "backing.img", 5, seed=9)
    rest = content(backing)[4 * MIB :]
    device = loop_device(backing)
    sides.program.run("seal", "--key-file", "key", image, "sealed")
    done = sides.program.run("open", "--key-file", "key", "sealed", device, code=15)
    assert "--larger-device" in done.hint
    sides.program.run("open", "--larger-device", "keep", "--key-file", "key", "sealed", device)
    assert content(backing) == content(image) + rest


@pytest.mark.root
def test_a_mounted_device(sides: Sides, image: Path, loop_device: Attach) -> None:
    backing = sides.folder / "backing.img"
    backing.write_bytes(bytes(4 * MIB))
    subprocess.run(["mkfs.ext4", "-q", backing], check=True)
    device = loop_device(backing)
    mount = sides.folder / "mnt"
    mount.mkdir()
    if subprocess.run(["mount", device, mount], capture_output=True).returncode:
        pytest.skip("ext4 cannot be mounted here")
    try:
        refused(sides, image, "mounted at", str(mount), target=device)
    finally:
        subprocess.run(["umount", mount], check=True)
    subprocess.run(["fsck.ext4", "-fn", backing], check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.root
def test_an_interrupted_copy_to_a_device_is_resumed(sides: Sides, image: Path, loop_device: Attach) -> None:
    """A device holds a mixture after it was interrupted: its journal stays until a copy completes."""
    image = dense_image(sides.folder / "larger.img", 8)
    backing = dense_image(sides.folder / "backing.img", 8, seed=9)
    device = loop_device(backing)
    words = sides.words(image, "--log-json", "--json", *HELD, target=device)
    running = sides.program.start(*words)
    running.await_sent(4 * MIB)
    running.process.terminate()
    assert running.end().code == 130
    sides.program.await_none()
    assert len(names_in(sides.state)) == 1
    done = sides.copy(image, target=device)
    assert done.result["resumed"] > 0
    subprocess.run(["blockdev", "--flushbufs", device], check=True)
    assert content(backing) == content(image)
    sides.assert_clean()


@pytest.mark.slow
def test_the_partial_is_private(sides: Sides, image: Path) -> None:
    running = sides.start(image, *HELD)
    part = wait_until(lambda: next(iter(sides.there.glob(".*-part")), None), "a partial")
    assert part.stat().st_mode & 0o777 == 0o600
    assert running.end().code == 0
    sides.assert_clean()
