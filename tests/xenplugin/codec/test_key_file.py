"""A key file is written whole or not at all, and only the key that a run has made is removed again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
