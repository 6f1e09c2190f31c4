"""Files that are refused as a target; nothing is left behind."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.image_kit import (
    EXTENTS,
    SIZE,
    leftovers,
    needs_root,
    open_elsewhere,
    put,
    sink_for,
    sparse_image,
)
from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import CHUNK
from xenplugin.image.beside import partial_name
from xenplugin.image.source.raw import open_source
from xenplugin.image.target.sink import open_sink


def test_a_larger_target(target: Path) -> None:
    sparse_image(target, SIZE + 1, [])
    with pytest.raises(RefusedError, match="is larger"):
        sink_for(target, SIZE)
    assert leftovers(target.parent) == []


def test_a_directory(target: Path) -> None:
    target.mkdir()
    with pytest.raises(RefusedError, match="a directory"):
        sink_for(target, SIZE)


def test_no_parent(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="does not exist"):
        sink_for(tmp_path / "no" / "disk", SIZE)
    assert not (tmp_path / "no").exists()


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no block device"):
        open_sink("/dev/no-such-volume", SIZE, state_dir=tmp_path, attached=lambda _: None)


@pytest.mark.root
@needs_root[1]
def test_a_mount_point(bind_mount: Path) -> None:
    """A rename onto it fails: it is refused before anything is sent."""
    link = bind_mount.with_name("link")
    link.symlink_to(bind_mount)
    for path in (bind_mount, link):
        with pytest.raises(RefusedError, match="is a mount point"):
            sink_for(path, SIZE)
    assert leftovers(bind_mount.parent) == []


def test_attached_to_a_guest(target: Path, tmp_path: Path) -> None:
    sparse_image(target, SIZE, [])
    link = tmp_path / "link"
    link.symlink_to(target)
    for path, named in ((target, target), (link, target), (link, link)):
        with pytest.raises(RefusedError, match="attached to guest g1"):
            sink_for(path, SIZE, attached={str(named): "g1"}.get)
    assert leftovers(target.parent) == []


def test_a_second_copy(target: Path) -> None:
    with sink_for(target, SIZE) as sink:
        with pytest.raises(RefusedError, match="another copy"):
            sink_for(target, SIZE)
        assert len(leftovers(target.parent)) == 2  # the first one's are still there
        sink.discard()
    sink_for(target, SIZE).discard()


def test_a_copy_that_ended_while_this_one_began(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The partial was renamed to the target between open and lock: it must not be written to."""
    part = Path(partial_name(str(target)))
    part.write_bytes(b"complete")
    real = fcntl.flock

    def late(fd: int, how: int) -> None:
        if part.exists() and not target.exists():
            part.rename(target)
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with sink_for(target, SIZE) as sink:
        put(sink, 0, b"x" * CHUNK)
        sink.discard()
    assert target.read_bytes() == b"complete"


@pytest.mark.parametrize("mode", ["rb", "r+b"])
def test_open_in_another_process(target: Path, mode: str) -> None:
    sparse_image(target, SIZE, [])
    with open_elsewhere(target, mode) as pid, pytest.raises(RefusedError, match=f"process {pid} "):
        sink_for(target, SIZE)
    assert leftovers(target.parent) == []
    sink_for(target, SIZE).discard()


def test_its_own_source(target: Path) -> None:
    sparse_image(target, SIZE, EXTENTS)
    with open_source(target), pytest.raises(RefusedError, match="this command"):
        sink_for(target, SIZE)


def fifo(_: Path, path: str) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [os.symlink, os.link, fifo])
def test_a_partial_that_is_not_ours(target: Path, tmp_path: Path, make: Callable[[Path, str], None]) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    part = partial_name(str(target))
    make(victim, part)
    with pytest.raises((RefusedError, ImageError)):
        sink_for(target, SIZE)
    assert victim.read_bytes() == b"precious"


def test_leaks_no_descriptor(target: Path) -> None:
    sparse_image(target, SIZE + 1, [])
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(RefusedError):
            sink_for(target, SIZE)
    os.truncate(target, SIZE)
    with open(target), pytest.raises(RefusedError):
        sink_for(target, SIZE)
    sink_for(target, SIZE).discard()
    assert len(os.listdir("/proc/self/fd")) == before
