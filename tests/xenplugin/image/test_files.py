"""Atomic writes: the whole new file or the old one, whatever happens in between."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from xenplugin.image import files
from xenplugin.image.files import rename_new, write_atomically


def test_a_new_file_has_the_content_and_the_mode(tmp_path: Path) -> None:
    write_atomically(tmp_path / "note", b"new")
    assert (tmp_path / "note").read_bytes() == b"new"
    assert (tmp_path / "note").stat().st_mode & 0o777 == 0o600
    write_atomically(tmp_path / "script", b"#!/bin/sh\n", mode=0o755)
    assert (tmp_path / "script").stat().st_mode & 0o777 == 0o755


def test_a_name_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomically("note", b"new")
    assert (tmp_path / "note").read_bytes() == b"new"


def test_what_a_crash_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".note.new").write_bytes(b"half of somethi")
    write_atomically(tmp_path / "note", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    (tmp_path / "note").write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "note", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"note": b"old"}


def test_the_content_is_durable_before_the_name_and_the_name_on_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        log.append(f"fsync {os.path.basename(os.readlink(f'/proc/self/fd/{fd}'))}")
        real_sync(fd)

    def rename(source: str, target: str) -> None:
        log.append("rename")
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    write_atomically(tmp_path / "note", b"new")
    assert log == ["fsync .note.new", "rename", f"fsync {tmp_path.name}"]


@pytest.fixture
def plain_rename(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only plain renames work, as with NFS and many FUSE file systems."""
    monkeypatch.setattr(files, "_renameat2", lambda *_: False)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("can", [True, False])
def test_a_rename_to_a_new_name_replaces_nothing(tmp_path: Path, request: pytest.FixtureRequest, can: bool) -> None:
    if not can:
        request.getfixturevalue("plain_rename")
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "dangling").symlink_to("nowhere")
    for taken in ("old", "dangling"):
        with pytest.raises(FileExistsError):
            rename_new(str(tmp_path / "new"), str(tmp_path / taken))
    os.unlink(tmp_path / "dangling")
    assert contents(tmp_path) == {"new": b"new", "old": b"old"}
    rename_new(str(tmp_path / "new"), str(tmp_path / "name"))
    assert contents(tmp_path) == {"name": b"new", "old": b"old"}


@pytest.mark.usefixtures("plain_rename")
def test_a_name_that_is_taken_in_the_last_moment_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstat

    def overtaken(fd: int) -> os.stat_result:
        (tmp_path / "theirs").write_bytes(b"theirs")
        with suppress(FileNotFoundError):
            os.rename(tmp_path / "theirs", tmp_path / "name")
        return real(fd)

    (tmp_path / "new").write_bytes(b"new")
    with monkeypatch.context() as patched, pytest.raises(FileExistsError):
        patched.setattr(os, "fstat", overtaken)
        rename_new(str(tmp_path / "new"), str(tmp_path / "name"))
    assert contents(tmp_path) == {"new": b"new", "name": b"theirs"}


@pytest.mark.usefixtures("plain_rename")
def test_a_rename_that_fails_leaves_no_empty_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        rename_new(str(tmp_path / "missing"), str(tmp_path / "name"))
    assert contents(tmp_path) == {}


def test_an_existing_file_is_kept_where_it_must_not_be_replaced(tmp_path: Path) -> None:
    write_atomically(tmp_path / "note", b"first", replace=False)
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "note", b"second", replace=False)
    assert contents(tmp_path) == {"note": b"first"}
