"""Files with reserved space: a full disk does not prevent their next version."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from xenplugin.image import reserved_file
from xenplugin.image.files import exchange, sync_directory
from xenplugin.image.reserved_file import remove_reserved, write_reserved


def read(path: Path) -> bytes:
    return path.read_bytes().rstrip(b" ")


def fill(folder: Path) -> None:
    """Leave no block free in `folder`'s file system."""
    fd = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT)
    try:
        for size in (1 << 16, 4096, 1):
            while True:
                os.write(fd, bytes(size))
    except OSError as error:
        assert error.errno == errno.ENOSPC
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="No space"):
        (folder / "another").write_bytes(bytes(4096))
    (folder / "another").unlink(missing_ok=True)


def test_new_versions_replace_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "note"
    for data in (b"first", b"second", b"3" * 9000, b"fourth"):
        write_reserved(path, data, continued=True)
        assert read(path) == data
        assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == [".note.spare", "note"]
    assert path.stat().st_size == (tmp_path / ".note.spare").stat().st_size
    remove_reserved(path)
    remove_reserved(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("can_exchange", [True, False], ids=["exchanged", "renamed"])
def test_a_full_disk_takes_new_versions(
    small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    folder = small_disk(1)
    path = folder / "note"
    write_reserved(path, b"begun", continued=True)
    fill(folder)
    if not can_exchange:
        monkeypatch.setattr(reserved_file, "exchange", lambda old, new: os.rename(old, new))
    for number in range(6):
        data = f"{number}".encode() * 1000
        write_reserved(path, data, continued=True)
        assert read(path) == data


def test_a_file_that_cannot_get_its_space_is_not_begun(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(1)
    fill(folder)
    with pytest.raises(OSError, match="No space"):
        write_reserved(folder / "note", b"first", continued=True)
    assert os.listdir(folder) == ["filler"]


def test_a_version_that_is_too_large_leaves_the_old_one(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(1)
    write_reserved(folder / "note", b"first", continued=True)
    fill(folder)
    with pytest.raises(OSError, match="No space"):
        write_reserved(folder / "note", bytes(1 << 20), continued=True)
    assert read(folder / "note") == b"first"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The steps of a write, in order."""
    steps: list[str] = []

    def note(step: str, call: Callable[..., object]) -> Callable[..., object]:
        def noted(*words: object) -> object:
            steps.append(step)
            return call(*words)

        return noted

    monkeypatch.setattr(os, "fdatasync", note("content", os.fdatasync))
    monkeypatch.setattr(reserved_file, "exchange", note("exchange", exchange))
    monkeypatch.setattr(reserved_file, "sync_directory", note("folder", sync_directory))
    yield steps


def test_the_content_is_durable_before_the_name_and_the_name_on_return(tmp_path: Path, log: list[str]) -> None:
    write_reserved(tmp_path / "note", b"first", continued=True)
    log.clear()
    write_reserved(tmp_path / "note", b"second", continued=True)
    assert log == ["content", "exchange", "folder"]


def test_what_another_process_exchanged_is_made_durable_before_it_is_overwritten(
    tmp_path: Path, log: list[str]
) -> None:
    write_reserved(tmp_path / "note", b"first", continued=True)
    log.clear()
    write_reserved(tmp_path / "note", b"second", continued=False)
    assert log == ["folder", "content", "exchange", "folder"]


def test_a_spare_that_may_be_the_file_after_a_power_failure_is_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "note"
    write_reserved(path, b"first", continued=True)

    def fail(_path: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(reserved_file, "sync_directory", fail)
        with pytest.raises(OSError, match="Input/output"):
            write_reserved(path, b"second", continued=True)
    assert os.listdir(tmp_path) == ["note"]
    write_reserved(path, b"third", continued=True)
    assert read(path) == b"third"


def test_a_failed_write_leaves_the_old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "note"
    write_reserved(path, b"first", continued=True)

    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="Input/output"):
        write_reserved(path, b"second", continued=True)
    assert read(path) == b"first"
