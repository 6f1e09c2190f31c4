"""The state directory, where it is no directory, or may not be looked at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from xenplugin.errors import ConfigError
from xenplugin.image import state_folder


def test_what_stands_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("file", "file/below"):
        with pytest.raises(ConfigError, match=f"{tmp_path}/file is not a directory"):
            state_folder.check(tmp_path / folder)
    state_folder.check(tmp_path / "missing" / "below")


def test_a_home_that_may_not_be_looked_into_is_no_internal_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sudo -u USER` keeps root's HOME."""
    stat, lstat = os.stat, os.lstat

    def closed(real: Any) -> Any:
        def examine(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
            if isinstance(path, str | Path) and str(path).startswith(str(tmp_path / "closed" / "")):
                raise PermissionError(13, "Permission denied")
            found: os.stat_result = real(path, *args, **kwargs)
            return found

        return examine

    (tmp_path / "closed" / "state").mkdir(parents=True)
    monkeypatch.setattr(os, "stat", closed(stat))
    monkeypatch.setattr(os, "lstat", closed(lstat))
    state_folder.check(tmp_path / "closed" / "state")
