"""Commit: in which order things become durable, and when the old image stays."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.image_kit import (
    SIZE,
    copy,
    put,
    send,
    sink_for,
)
from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import CHUNK
from xenplugin.image.files import rename_new
from xenplugin.image.source.raw import open_source
from xenplugin.image.target import file
from xenplugin.image.target.abstract import Attached


def test_not_before_every_chunk_is_there(target: Path) -> None:
    with sink_for(target, 3 * CHUNK) as sink:
        sink.put_zeros(0, 2)
        with pytest.raises(ImageError, match="1 chunks are missing"):
            sink.commit()
        sink.suspend()
    assert not target.exists()


@pytest.mark.parametrize("replaces", [False, True])
def test_everything_is_durable_before_and_after_the_rename(
    target: Path, replaces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []

    def spy(module: object, name: str, where: Callable[..., str]) -> None:
        real = getattr(module, name)

        def call(*args: object) -> object:
            log.append(f"{name} {where(*args)}")
            return real(*args)

        monkeypatch.setattr(module, name, call)

    def path_of(fd: int, *_: object) -> str:
        return os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))

    if replaces:
        target.write_bytes(b"old")
    sink = sink_for(target, CHUNK)
    put(sink, 0, b"x" * CHUNK)
    for name in ("fsync", "fdatasync", "fchmod", "write"):
        spy(os, name, path_of)
    spy(os, "rename", lambda a, b: os.path.basename(b))
    spy(file, "rename_new", lambda a, b: os.path.basename(b))
    spy(os, "unlink", os.path.basename)
    sink.commit()
    part, record, directory = ".disk.xenplugin-part", ".disk.xenplugin-journal", "there"
    assert log.pop().startswith("unlink disk-")  # the link in the state directory
    assert log == [
        f"fdatasync {part}",
        f"write {record}",
        f"fsync {record}",
        *([f"fchmod {part}"] if replaces else []),
        f"fsync {part}",
        f"write {record}",
        f"fsync {record}",
        "rename disk" if replaces else "rename_new disk",
        f"fsync {directory}",
        f"unlink {record}",
        f"fsync {directory}",
    ]


def refused(target: Path, image: Path, spoil: Callable[[], object], *, attached: Attached = lambda _: None) -> None:
    with open_source(image) as source, sink_for(target, SIZE, attached=attached) as sink:
        send(source, sink, {})
        spoil()
        with pytest.raises(RefusedError):
            sink.commit()
        sink.suspend()


def test_not_over_a_file_that_appeared(target: Path, image: Path) -> None:
    refused(target, image, lambda: target.write_bytes(b"precious"))
    assert target.read_bytes() == b"precious"
    assert copy(image, target).data == 0  # everything was durable already
    assert target.read_bytes() == image.read_bytes()


def test_not_over_a_file_that_was_written_to(target: Path, image: Path) -> None:
    target.write_bytes(b"old image")
    refused(target, image, lambda: target.write_bytes(b"precious!"))
    assert target.read_bytes() == b"precious!"


def test_not_over_a_file_that_was_replaced(target: Path, image: Path) -> None:
    target.write_bytes(b"old image")

    def replace() -> None:
        other = target.with_name("other")
        other.write_bytes(b"precious!")
        os.replace(other, target)

    refused(target, image, replace)
    assert target.read_bytes() == b"precious!"


def test_not_in_the_place_of_a_file_that_was_removed(target: Path, image: Path) -> None:
    target.write_bytes(b"old image")
    refused(target, image, target.unlink)
    assert not target.exists()


def test_not_over_a_file_that_came_into_use(target: Path, image: Path) -> None:
    target.write_bytes(b"old image")
    with ExitStack() as holders:
        refused(target, image, lambda: holders.enter_context(open(target, "rb")))
    assert target.read_bytes() == b"old image"


def test_not_over_a_file_that_is_written_to_while_the_new_one_is_made_durable(
    target: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fsync of a large image takes long: the old one is looked at after it."""
    target.write_bytes(b"old image")
    fsync = os.fsync

    def slow(fd: int) -> None:
        fsync(fd)
        if os.readlink(f"/proc/self/fd/{fd}").endswith("-part"):
            with target.open("r+b") as file:
                file.write(b"precious!")
                fsync(file.fileno())

    with open_source(image) as source, sink_for(target, SIZE) as sink:
        send(source, sink, {})
        monkeypatch.setattr(os, "fsync", slow)
        with pytest.raises(RefusedError, match="was changed"):
            sink.commit()
        monkeypatch.undo()
        sink.suspend()
    assert target.read_bytes() == b"precious!"
    assert copy(image, target).data == 0


def test_the_old_image_cannot_be_opened_while_the_new_one_takes_its_name(
    target: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.write_bytes(b"old image")
    rename, tried = os.rename, []

    def watched(old: str, new: str) -> None:
        with pytest.raises(BlockingIOError):
            tried.append(new)
            os.open(target, os.O_RDWR | os.O_NONBLOCK)
        rename(old, new)

    with open_source(image) as source, sink_for(target, SIZE) as sink:
        send(source, sink, {})
        monkeypatch.setattr(os, "rename", watched)
        sink.commit()
    assert tried == [str(target)] and target.read_bytes() == image.read_bytes()
    target.open("r+b").close()


def test_what_was_committed_is_known_by_what_it_was_before_it_had_its_name(
    target: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that waits for the name and writes at once changes the file noticeably."""

    def written_at_once(old: str, new: str) -> None:
        rename_new(old, new)
        os.utime(new, ns=(1, 1))

    with open_source(image) as source:
        with sink_for(target, SIZE) as sink:
            send(source, sink, {})
            sink.commit()
            assert sink.committed(bytes(32)).difference(str(target)) is None
        target.unlink()
        monkeypatch.setattr(file, "rename_new", written_at_once)
        with sink_for(target, SIZE) as sink:
            send(source, sink, {})
            sink.commit()
            assert sink.committed(bytes(32)).difference(str(target)) == "it was written to"


def test_not_when_a_guest_got_it(target: Path, image: Path) -> None:
    guests: dict[str, str] = {}
    refused(target, image, lambda: guests.update({str(target): "g1"}), attached=guests.get)
    assert not target.exists()


def test_a_sync_that_failed_is_never_forgotten(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = sink_for(target, 2 * CHUNK)
    put(sink, 0, b"x" * CHUNK)
    sink.checkpoint()
    put(sink, 1, b"x" * CHUNK)
    real, failures = os.fdatasync, [OSError(errno.EIO, "Input/output error")]

    def once(fd: int) -> None:
        if failures:
            raise failures.pop()
        real(fd)

    monkeypatch.setattr(os, "fdatasync", once)
    with pytest.raises(ImageError, match="Input/output error"):
        sink.checkpoint()
    with pytest.raises(ImageError, match="cannot be trusted"):
        sink.commit()
    sink.suspend()
    assert not target.exists()
    with sink_for(target, 2 * CHUNK) as sink:
        assert sink.resumed == CHUNK  # the first chunk only
        sink.discard()
