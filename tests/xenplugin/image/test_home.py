"""Paths that a user of another host gives."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from xenplugin.errors import RefusedError
from xenplugin.image.home import at_home


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_paths_are_below_the_home_directory(home: Path) -> None:
    me = pwd.getpwuid(os.geteuid())
    assert at_home("/srv/disk.img") == "/srv/disk.img"
    assert at_home("disk.img") == f"{home}/disk.img"
    assert at_home("xen/~disk.img") == f"{home}/xen/~disk.img"
    assert at_home("~/disk.img") == f"{home}/disk.img"
    assert at_home(f"~{me.pw_name}/disk.img") == os.path.join(me.pw_dir, "disk.img")
    assert at_home("./~/disk.img") == f"{home}/./~/disk.img"


def test_a_home_directory_of_nobody_is_refused() -> None:
    with pytest.raises(RefusedError, match="user 'no-such-user' does not exist") as caught:
        at_home("~no-such-user/disk.img")
    assert "./~NAME" in (caught.value.hint or "")
