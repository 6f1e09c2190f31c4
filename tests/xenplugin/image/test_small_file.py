"""Only a regular file is read, only so much of it, and nothing is waited for."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from xenplugin.image.small_file import UnfitFileError, open_regular, read_small


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.fspath(path))


#: What lies where a file is expected, and what it is called.
UNFIT: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a directory": Path.mkdir,
    "a socket": _socket,
    "a symbolic link": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", UNFIT)
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_APPEND])
def test_anything_else_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, flags: int) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    UNFIT[kind](Path("it"))
    with pytest.raises(UnfitFileError, match=f"it is {kind}, not a regular file"):
        open_regular("it", flags)


def test_a_device_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    monkeypatch.setattr(os, "open", None)
    for path, follow in (("/dev/zero", False), (tmp_path / "link", True)):
        with pytest.raises(UnfitFileError, match="it is a character device"):
            read_small(path, 10, follow=follow)


def test_what_takes_the_place_of_the_file_that_was_looked_at_is_refused_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "it").write_bytes(b"content")
    real = os.open

    def overtaken(path: Path, flags: int) -> int:
        os.unlink(path)
        os.mkfifo(path)
        return real(path, flags)

    monkeypatch.setattr(os, "open", overtaken)
    with pytest.raises(UnfitFileError, match="it is a pipe"):
        read_small(tmp_path / "it", 10)


def test_size(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(bytes(10))
    assert read_small(tmp_path / "it", 10) == bytes(10)
    with pytest.raises(UnfitFileError, match="larger than 9 bytes"):
        read_small(tmp_path / "it", 9)
    os.truncate(tmp_path / "it", 1 << 40)
    with pytest.raises(UnfitFileError, match="larger than 10 bytes"):
        read_small(tmp_path / "it", 10)
    with pytest.raises(FileNotFoundError):
        read_small(tmp_path / "missing", 10)


def test_links_are_followed_where_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"content")
    (tmp_path / "link").symlink_to("it")
    assert read_small(tmp_path / "link", 10, follow=True) == b"content"
