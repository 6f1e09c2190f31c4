"""Looking whether a path can be a target says what opening it says, and changes nothing."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fakes.lvm import UUID, Lvm
from xenplugin.errors import XenpluginError
from xenplugin.image.beside import journal_name, partial_name
from xenplugin.image.formats.kinds import Format
from xenplugin.image.old import old_disk
from xenplugin.image.old.old_disk import OldDisk
from xenplugin.image.safety import in_use
from xenplugin.image.target.device_size import REFUSE
from xenplugin.image.target.dry_run import TargetFacts, examine
from xenplugin.image.target.sink import open_sink

MIB = 1 << 20
SIZE = 4 * MIB


def nobody(path: str) -> str | None:
    return None


def looked(path: Path | str, state: Path, **values: Any) -> TargetFacts:
    options = {"attached": nobody, "format": Format(), "larger_device": REFUSE, **values}
    return examine(str(path), SIZE, state_dir=state, **options)


def why(act: Callable[[], Any]) -> tuple[type[XenpluginError], str, str | None] | None:
    try:
        act()
    except XenpluginError as error:
        return type(error), error.message, error.hint
    return None


def folder(place: Path) -> None:
    place.mkdir()


def larger(place: Path) -> None:
    place.write_bytes(bytes(SIZE + 1))


def pipe(place: Path) -> None:
    os.mkfifo(place)


def foreign_journal(place: Path) -> None:
    Path(partial_name(str(place))).touch(0o600)
    os.mkfifo(journal_name(str(place)))


def lost_folder(place: Path) -> None:
    place.parent.rmdir()


def empty(place: Path) -> None:
    """Leave everything as it is."""


@contextmanager
def as_made(place: Path, make: Callable[[Path], None]) -> Iterator[None]:
    make(place)
    yield


@contextmanager
def opened(place: Path, _: Callable[[Path], None]) -> Iterator[None]:
    place.write_bytes(bytes(MIB))
    with place.open("rb"):
        yield


@contextmanager
def another_copy(place: Path, _: Callable[[Path], None]) -> Iterator[None]:
    with open(partial_name(str(place)), "wb") as part:
        fcntl.flock(part, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize(
    ("around", "make", "refused"),
    [
        (as_made, empty, False),
        (as_made, lambda place: place.write_bytes(bytes(MIB)), False),
        (as_made, folder, True),
        (as_made, larger, True),
        (as_made, pipe, True),
        (as_made, lost_folder, True),
        (as_made, foreign_journal, True),
        (opened, empty, True),
        (another_copy, empty, True),
    ],
)
def test_it_says_what_opening_says(
    tmp_path: Path, around: Any, make: Callable[[Path], None], refused: bool
) -> None:
    place, state = tmp_path / "disks" / "g1.img", tmp_path / "state"
    place.parent.mkdir()
    with around(place, make):
        before = sorted(os.listdir(tmp_path / "disks")) if place.parent.exists() else []
        seen = why(lambda: looked(place, state))
        assert (sorted(os.listdir(tmp_path / "disks")) if place.parent.exists() else []) == before
        assert not state.exists()
        assert seen == why(lambda: open_sink(place, SIZE, state_dir=state, attached=nobody).close())
        assert (seen is not None) is refused


def test_a_part_of_a_sector_in_another_format(tmp_path: Path) -> None:
    place, state, qcow2 = tmp_path / "g1.img", tmp_path / "state", Format("qcow2")
    options: dict[str, Any] = {"state_dir": state, "attached": nobody, "format": qcow2}
    seen = why(lambda: examine(str(place), SIZE + 1, larger_device=REFUSE, **options))
    assert seen is not None and "no multiple of 512" in seen[1]
    assert seen == why(lambda: open_sink(place, SIZE + 1, **options).close())
    assert os.listdir(tmp_path) == ["state"] or os.listdir(tmp_path) == []


def test_a_mount_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "g1.img"
    place.write_bytes(bytes(MIB))
    monkeypatch.setattr(in_use, "mounts", lambda: iter([SimpleNamespace(where=str(place))]))
    seen = why(lambda: looked(place, tmp_path / "state"))
    assert seen is not None and "mount point" in seen[1]
    assert seen == why(lambda: open_sink(place, SIZE, state_dir=tmp_path / "state", attached=nobody).close())


def test_a_guest_that_has_it_attached(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(bytes(MIB))
    (tmp_path / "link").symlink_to(tmp_path / "real")

    def user(of: str) -> str | None:
        return "g7" if of == str(tmp_path / "real") else None

    for name in ("real", "link"):
        place = tmp_path / name
        seen = why(lambda place=place: looked(place, tmp_path, attached=user))  # type: ignore[misc]
        assert seen is not None and "attached to guest g7" in seen[1]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    seen = why(lambda: looked(tmp_path / "g1.img", tmp_path))
    assert seen is not None and "no file can be created in" in seen[1] and "paths" in (seen[2] or "")


def test_what_is_there(tmp_path: Path) -> None:
    place, state = tmp_path / "g1.img", tmp_path / "state"
    found = looked(place, state)
    assert (found.device, found.size, found.aside) == (False, None, "")
    assert found.free and found.file_system == tmp_path.stat().st_dev
    part = Path(partial_name(str(place)))
    part.write_bytes(os.urandom(MIB))
    os.sync()
    place.write_bytes(bytes(MIB))
    assert looked(place, state).size == MIB


def old(path: str, aside: str, storage: str, **values: Any) -> OldDisk:
    return OldDisk(path, aside, storage, SIZE, "g1", "u", "hostb", "0" * 32, time.time(), **values)


def test_an_old_file_is_the_base(tmp_path: Path) -> None:
    place, aside, state = tmp_path / "g1.img", tmp_path / "g1.img.left-for-hostb", tmp_path / "state"
    aside.write_bytes(bytes(SIZE))
    status = aside.stat()
    record = old(str(place), str(aside), old_disk.FILE, device=status.st_dev, inode=status.st_ino)
    old_disk.write(state, record)
    assert looked(place, state).aside == str(aside)
    place.write_bytes(b"x")
    assert looked(place, state).aside == ""


def test_an_old_volume_gets_its_name_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that returns to a volume, which has no device until then."""
    lvm, state = Lvm(tmp_path / "lvm", monkeypatch), tmp_path / "state"
    record = old("/dev/vg0/g2", "/dev/vg0/g2.left-for-hostb", old_disk.VOLUME, volume=UUID, name="g2")
    assert why(lambda: looked("/dev/vg0/g2", state)) is not None
    old_disk.write(state, record)
    lvm.set(
        {"vg_name": "vg0", "lv_name": "g2.left", "vg_uuid": UUID[:32], "lv_uuid": UUID[32:], "lv_size": str(SIZE)}
    )
    assert looked("/dev/vg0/g2", state) == TargetFacts(True, SIZE, "/dev/vg0/g2.left-for-hostb")
    lvm.set(
        {"vg_name": "vg0", "lv_name": "g2.left", "vg_uuid": UUID[:32], "lv_uuid": UUID[32:], "lv_size": str(MIB)}
    )
    seen = why(lambda: looked("/dev/vg0/g2", state))
    assert seen is not None and "too small" in seen[1]
    old_disk.write(state, replace(record, volume="other"))
    assert why(lambda: looked("/dev/vg0/g2", state)) is not None
