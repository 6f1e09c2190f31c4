"""A configuration file that is put aside, and gets its name back, wherever a crash is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.dying import Killed, dying
from xenplugin.errors import ImageError
from xenplugin.image.old import config_file, moving, old_disk
from xenplugin.image.old.old_disk import CONFIG, OldDisk

ABOUT = {"guest": "g1", "uuid": "u", "host": "hostb", "migration": "m"}


class Here:
    """A host with the file xen/g1.cfg, to which the links auto/10-g1 and auto/20-g1 lead."""

    def __init__(self, folder: Path) -> None:
        self.state, self.path, self.auto = folder / "state", folder / "xen/g1.cfg", folder / "xen/auto"
        self.auto.mkdir(parents=True)
        self.path.write_text("name = 'g1'\n")
        self.links: tuple[tuple[str, str], ...] = (
            (str(self.auto / "10-g1"), "../g1.cfg"),
            (str(self.auto / "20-g1"), str(self.path)),
        )
        for link, text in self.links:
            os.symlink(text, link)

    def leave(self, folder: Path | None = None) -> OldDisk | None:
        return config_file.put_aside(
            self.state, str(self.path), self.links, str(folder or self.path.parent), **ABOUT
        )

    def records(self) -> list[OldDisk]:
        found, unreadable = old_disk.read_all(self.state)
        assert not unreadable
        return found

    def has_left(self) -> bool:
        """Whether nothing starts the guest, and the file lies where its record says."""
        (old,) = self.records()
        assert Path(old.aside).read_text() == "name = 'g1'\n" and old.storage == CONFIG
        return not self.path.exists() and list(self.auto.iterdir()) == []

    def is_as_before(self) -> bool:
        links = tuple((str(link), os.readlink(link)) for link in sorted(self.auto.iterdir()))
        return self.path.read_text() == "name = 'g1'\n" and links == self.links and self.records() == []


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


def test_there_and_back(here: Here) -> None:
    old = here.leave()
    assert old is not None and old.aside.startswith(f"{here.path}.left-for-hostb-20") and here.has_left()
    assert here.records() == [old] and old.links == here.links
    config_file.give_back(here.state, old)
    assert here.is_as_before()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("module", "name", "times"),
    [
        (old_disk, "write", 1), (moving, "rename_new", 1), (moving, "sync_directory", 1),
        (config_file, "remove", 1), (config_file, "remove", 2), (config_file, "sync_directory", 1),
    ],
)  # fmt: skip
def test_killed_while_it_is_put_aside(here: Here, module: Any, name: str, times: int, after: bool) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        dying(patch, module, name, times, after)
        here.leave()
    old = here.leave()
    assert old is not None and here.has_left()
    config_file.give_back(here.state, old)
    assert here.is_as_before()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("module", "name", "times"),
    [
        (os, "symlink", 1), (os, "symlink", 2), (config_file, "sync_directory", 1), (config_file, "rename_new", 1),
        (config_file, "sync_directory", 2), (old_disk, "forget", 1),
    ],
)  # fmt: skip
def test_killed_while_it_gets_its_name_back(here: Here, module: Any, name: str, times: int, after: bool) -> None:
    old = here.leave()
    assert old is not None
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        dying(patch, module, name, times, after)
        config_file.give_back(here.state, old)
    config_file.give_back(here.state, old)
    assert here.is_as_before()


def test_a_file_in_a_folder_where_each_is_started(here: Here) -> None:
    inside = here.auto / "g1"
    here.path.rename(inside)
    here.path, here.links = inside, ()
    for link in ("10-g1", "20-g1"):
        (here.auto / link).unlink()
    old = here.leave(here.auto.parent)
    assert old is not None and here.has_left() and Path(old.aside).parent == here.auto.parent
    config_file.give_back(here.state, old)
    assert inside.exists() and here.records() == []


def test_a_file_that_is_gone(here: Here) -> None:
    here.path.unlink()
    assert here.leave() is None and here.records() == []


def test_a_file_that_cannot_be_renamed(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its name, but nothing starts the guest from it."""

    def refuse(source: str, target: str) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(moving, "rename_new", refuse)
    old = here.leave()
    assert old is not None and old.aside == old.path == str(here.path)
    assert here.path.exists() and list(here.auto.iterdir()) == []
    config_file.give_back(here.state, old)
    assert here.is_as_before()


def test_links_that_have_changed_stay(here: Here) -> None:
    for link, _ in here.links:
        os.unlink(link)
    os.symlink("../g2.cfg", here.links[0][0])
    Path(here.links[1][0]).write_text("a file")
    old = here.leave()
    assert old is not None and sorted(entry.name for entry in here.auto.iterdir()) == ["10-g1", "20-g1"]
    with pytest.raises(ImageError, match="10-g1"):
        config_file.give_back(here.state, old)
    assert not here.path.exists() and here.records() == [old]


def test_a_name_that_is_taken(here: Here) -> None:
    old = here.leave()
    assert old is not None
    here.path.write_text("mine")
    with pytest.raises(ImageError, match="something else has it"):
        config_file.give_back(here.state, old)
    assert here.path.read_text() == "mine" and here.records() == [old]


def test_clean_removes_it(here: Here) -> None:
    old = here.leave()
    assert old is not None and moving.bytes_held(old) == 4096
    moving.remove_old(here.state, old)
    assert [path.name for path in here.path.parent.iterdir()] == ["auto"] and here.records() == []
