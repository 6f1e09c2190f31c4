"""The configuration file of a guest that leaves: how it is sent, and what becomes of it here."""

from __future__ import annotations

import base64
import errno
import json
import os
from pathlib import Path

import pytest

from tests.fakes import guest_files
from tests.fakes.guest_files import files
from xenplugin.image.old import moving
from xenplugin.migrate.guest_config import leaving_config
from xenplugin.migrate.ownership import records
from xenplugin.migrate.ownership.records import ConfigNote, PeerNote, Record
from xenplugin.migrate.ownership.states import Role
from xenplugin.wire.frames import MAX_NOTE
from xenplugin.xen.guest_file import LARGEST, GuestFile

UUID = "5c5b1ad0-4f16-4a3c-9d1e-000000000001"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return guest_files.install(tmp_path / "xen", monkeypatch)


def left(path: Path, links: tuple[tuple[str, str], ...] = ()) -> Record:
    """The record of g1, which has left for hostb."""
    note = ConfigNote(str(path), links, path.stat().st_mtime_ns if path.exists() else 0)
    return records.new(Role.SOURCE, "ab" * 16, uuid=UUID, name="g1", peer=PeerNote("hostb"), config=note)


@pytest.mark.parametrize("size", [0, 1, 9 << 10, (9 << 10) + 1, LARGEST])
def test_each_note_is_short_enough(size: int) -> None:
    data = os.urandom(size)
    longest = "\u00e4" * 126  # in bytes, and more so in JSON
    links = tuple((f"/etc/xen/auto/{longest}{number}", "x") for number in range(10, 26))
    *parts, last = leaving_config.parts(GuestFile(f"/etc/xen/{longest}", data, 0, links))
    assert b"".join(base64.b64decode(part["data"]) for part in parts) == data
    assert last["name"] == longest and len(last["links"]) == 16
    assert all(len(json.dumps({"config": note})) <= MAX_NOTE for note in (*parts, last))


def test_a_file_in_auto_gets_a_link_over_there(folder: Path) -> None:
    (last,) = leaving_config.parts(GuestFile(str(folder / "auto/g1"), b"", 0, ((f"{folder}/auto/g", "g1"),)))
    assert last == {"name": "g1", "links": ["g1", "g"]}


def test_it_is_put_aside(folder: Path, tmp_path: Path) -> None:
    path = folder / "g1.cfg"
    path.write_text("name = 'g1'")
    (folder / "auto/g1").symlink_to("../g1.cfg")
    said: list[str] = []
    leaving_config.put_aside(tmp_path, left(path, ((f"{folder}/auto/g1", "../g1.cfg"),)), said.append)
    (name,) = files(folder)
    assert name.startswith("g1.cfg.left-for-hostb-") and said == []


def test_nothing_lies_aside_where_each_file_is_started(folder: Path, tmp_path: Path) -> None:
    path = folder / "auto/g1"
    path.write_text("name = 'g1'")
    leaving_config.put_aside(tmp_path, left(path), lambda text: None)
    (name,) = files(folder)
    assert name.startswith("g1.left-for-hostb-")


def test_a_file_that_was_changed_meanwhile(folder: Path, tmp_path: Path) -> None:
    path = folder / "g1.cfg"
    path.write_text("name = 'g1'")
    one = left(path)
    os.utime(path, ns=(1, 1))
    said: list[str] = []
    leaving_config.put_aside(tmp_path, one, said.append)
    assert len(said) == 1 and "was changed while g1 moved" in said[0] and "left-for-hostb" in said[0]


def test_a_file_that_is_gone(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    leaving_config.put_aside(tmp_path, left(folder / "g1.cfg"), said.append)
    assert said == [] and files(folder) == {}


@pytest.mark.parametrize(("number", "says"), [(errno.EROFS, "cannot be renamed: remove it"), (errno.EIO, "keeps")])
def test_a_file_that_cannot_be_renamed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    """The administrator gets a notice, and the guest leaves nevertheless."""

    def refuse(source: str, target: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(moving, "rename_new", refuse)
    path = folder / "g1.cfg"
    path.write_text("name = 'g1'")
    said: list[str] = []
    leaving_config.put_aside(tmp_path, left(path), said.append)
    assert path.exists() and len(said) == 1 and says in said[0]
