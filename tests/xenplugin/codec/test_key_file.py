"""A key file is written whole or not at all, and only the key that a run has made is removed again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.images import names_in
from xenplugin.codec.seal import make_key_file, read_key_file, remove_key_file
from xenplugin.errors import ConfigError


def test_a_key_file_that_cannot_be_finished_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        make_key_file(str(tmp_path / "key"))
    assert not (tmp_path / "key").exists()
    (tmp_path / "key").write_text("another's")
    with pytest.raises(ConfigError, match="File exists"):
        make_key_file(str(tmp_path / "key"))
    assert (tmp_path / "key").read_text() == "another's"


def test_only_the_key_that_was_made_is_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "key")
    first = make_key_file(path)
    os.unlink(path)
    second = make_key_file(path)
    remove_key_file(path, first)
    assert read_key_file(path) == second
    remove_key_file(path, second)
    assert not os.path.exists(path)
    remove_key_file(path, second)


def test_an_empty_key_file_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "key").touch(0o600)
    with pytest.raises(ConfigError, match="is empty") as info:
        read_key_file(str(tmp_path / "key"))
    assert "remove it: then seal makes a new one" in str(info.value.hint)


def test_a_key_file_on_a_full_disk_is_whole_or_not_there(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(1)
    with pytest.raises(OSError, match="No space"), open(folder / "filler", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    with pytest.raises(ConfigError, match="No space left"):
        make_key_file(str(folder / "key"))
    assert names_in(folder) == {"filler"}
    (folder / "filler").unlink()
    assert make_key_file(str(folder / "key")) == read_key_file(str(folder / "key"))


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: os.mkfifo(path, 0o600), "a pipe"),
        (lambda path: path.mkdir(0o700), "a directory"),
        (lambda path: path.symlink_to("/dev/zero"), "a character device"),
    ],
)
def test_only_a_regular_file_is_a_key_file(tmp_path: Path, make: Callable[[Path], None], what: str) -> None:
    make(tmp_path / "key")
    with pytest.raises(ConfigError, match=f"cannot read the key file .*: it is {what}, not a regular file"):
        read_key_file(str(tmp_path / "key"))


def test_a_link_to_a_key_file_is_followed(tmp_path: Path) -> None:
    secret = make_key_file(str(tmp_path / "key"))
    (tmp_path / "link").symlink_to("key")
    assert read_key_file(str(tmp_path / "link")) == secret
