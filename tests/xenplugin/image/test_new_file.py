"""A new file gets its name when it is complete, on every file system, and never takes another file's."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.images import names_in
from xenplugin.image import files
from xenplugin.image.new_file import NewFile

_open = os.open


def _no_nameless(path: Any, flags: int, *rest: Any, **more: Any) -> int:
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    return _open(path, flags, *rest, **more)


def _no_link(*_: Any, **__: Any) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.fixture(params=["all", "no links", "no nameless files", "neither, and no rename without replacing"])
def lacking(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the file system cannot do."""
    if request.param != "all":
        monkeypatch.setattr(os, "link", _no_link)
    if request.param[0] == "n" and request.param != "no links":
        monkeypatch.setattr(os, "open", _no_nameless)
    if "rename" in request.param:
        monkeypatch.setattr(files, "_renameat2", lambda *_: False)
    return str(request.param)


@pytest.mark.usefixtures("lacking")
def test_it_has_its_name_when_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (str(tmp_path / "one"), "two"):
        with NewFile(path) as made:
            os.write(made.fd, b"content")
            assert not os.path.lexists(path)
            made.commit()
        assert Path(path).read_bytes() == b"content" and os.stat(path).st_mode & 0o777 == 0o600
    assert names_in(tmp_path) == {"one", "two"}


@pytest.mark.usefixtures("lacking")
def test_nothing_is_left_of_one_that_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), NewFile(str(tmp_path / "one")):
        raise KeyboardInterrupt
    assert names_in(tmp_path) == set()


@pytest.mark.usefixtures("lacking")
@pytest.mark.parametrize("dangling", [False, True])
def test_another_file_keeps_its_name(tmp_path: Path, dangling: bool) -> None:
    def take() -> None:
        if dangling:
            (tmp_path / "one").symlink_to("nowhere")
        else:
            (tmp_path / "one").write_bytes(b"theirs")

    with pytest.raises(FileExistsError), NewFile(str(tmp_path / "one")) as made:
        take()
        made.commit()
    assert names_in(tmp_path) == {"one"}
    before = os.lstat(tmp_path / "one")
    with pytest.raises(FileExistsError):
        NewFile(str(tmp_path / "one"))
    assert names_in(tmp_path) == {"one"} and os.lstat(tmp_path / "one") == before


def test_the_way_to_its_name_is_tried_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", _no_nameless)

    def fail(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "no renames here")

    monkeypatch.setattr(files, "_renameat2", fail)
    with pytest.raises(PermissionError, match="no renames"):
        NewFile(str(tmp_path / "one"))
    assert names_in(tmp_path) == set()
