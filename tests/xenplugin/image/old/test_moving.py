"""Old disks on this machine's file system: what is renamed, what is refused, and what is left."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.lvm import UUID as VOLUME
from tests.fakes.lvm import Lvm
from tests.helpers.images import attached
from xenplugin.errors import ImageError, OwnershipError
from xenplugin.image.files import rename_new
from xenplugin.image.old import moving, old_disk
from xenplugin.image.old.old_disk import DEVICE, FILE, OldDisk

ABOUT = {"guest": "g1", "uuid": "u", "host": "hostb", "migration": "m"}


class Here:
    """A host with the disk `disk`, and its state directory."""

    def __init__(self, folder: Path) -> None:
        self.state, self.disk = folder / "state", folder / "disks" / "g1.img"
        self.disk.parent.mkdir()
        self.disk.write_bytes(b"x" * 8192)
        self.said: list[str] = []

    def leave(self, path: Path | None = None, *, unwanted: bool = False) -> OldDisk:
        """Put the disk aside; returns its record."""
        found = moving.examine(str(path or self.disk), 8192, **ABOUT, unwanted=unwanted)
        moving.put_aside(self.state, found, self.said.append)
        (old,) = self.records()
        return old

    def records(self) -> list[OldDisk]:
        found, unreadable = old_disk.read_all(self.state)
        assert not unreadable
        return found


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


@pytest.fixture
def lvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lvm:
    return Lvm(tmp_path / "lvm", monkeypatch)


# -- files -----------------------------------------------------------------------------------------


def test_there_and_back(here: Here) -> None:
    inode = here.disk.stat().st_ino
    old = here.leave()
    assert not here.disk.exists() and Path(old.aside).stat().st_ino == inode and old.storage == FILE
    assert moving.bytes_held(old) == 8192 and not moving.has_name(old) and not here.said
    for _ in range(2):  # again, as after a crash
        moving.give_back(here.state, old)
        assert here.disk.stat().st_ino == inode and here.records() == []


@pytest.mark.parametrize("name", [b"g\xff1.img", b"\xe4" * 255, "ä".encode() * 127, b"a\nb", b" "])
def test_any_name(here: Here, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(here.disk.parent) + b"/" + name))
    here.disk.rename(path)
    old = here.leave(path)
    assert not path.exists() and os.path.exists(old.aside)
    moving.give_back(here.state, old)
    assert path.exists()


def test_a_name_that_is_taken_is_not_used(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1795979171.0)
    taken = here.disk.with_name("g1.img.left-for-hostb-20261129T190611Z")
    taken.write_bytes(b"other")
    assert here.leave().aside == f"{taken}.1" and taken.read_bytes() == b"other"


def test_one_that_appears_at_the_last_moment_is_not_replaced(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def late(source: str, target: str) -> None:
        if not seen:
            Path(target).write_bytes(b"other")
        seen.append(target)
        rename_new(source, target)

    monkeypatch.setattr(moving, "rename_new", late)
    old = here.leave()
    assert len(seen) == 2 and old.aside == seen[1] and Path(seen[0]).read_bytes() == b"other"


def test_its_name_is_taken_meanwhile(here: Here) -> None:
    old = here.leave()
    here.disk.write_bytes(b"mine")
    with pytest.raises(OwnershipError, match="something else has taken its name") as refused:
        moving.give_back(here.state, old)
    assert refused.value.hint and here.disk.read_bytes() == b"mine" and here.records() == [old]


def test_the_record_is_there_first(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise ImageError("no space")

    monkeypatch.setattr(old_disk, "write", full)
    with pytest.raises(ImageError):
        here.leave()
    assert here.disk.exists()


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EROFS, errno.EPERM])
def test_a_file_that_cannot_be_renamed_is_recorded(
    here: Here, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(source: str, target: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(moving, "rename_new", refuse)
    old = here.leave()
    assert old.aside == old.path == str(here.disk) and "keeps its name" in here.said[0]
    assert moving.has_name(old) and moving.bytes_held(old) == 0
    moving.remove_old(here.state, old)
    assert here.disk.exists() and here.records() == []


def test_an_error_of_the_disk_is_none_of_these(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: str, target: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(moving, "rename_new", fail)
    with pytest.raises(ImageError, match="Input/output error"):
        here.leave()


def test_another_file_that_has_the_name_by_now_is_not_touched(here: Here) -> None:
    found = moving.examine(str(here.disk), 8192, **ABOUT, unwanted=False)
    here.disk.rename(here.disk.with_name("moved"))
    here.disk.write_bytes(b"mine")
    moving.put_aside(here.state, found, here.said.append)
    assert here.disk.read_bytes() == b"mine" and "another file" in here.said[0]


def test_hard_links(here: Here) -> None:
    other = here.disk.with_name("other")
    other.hardlink_to(here.disk)
    old = here.leave()
    assert not here.disk.exists() and "hard links" in here.said[0]
    assert old.is_at(str(other)) and moving.bytes_held(old) == 0


def test_a_symbolic_link_leads_to_the_file_that_is_renamed(here: Here) -> None:
    link = here.disk.with_name("link")
    link.symlink_to(here.disk)
    old = here.leave(link)
    assert not here.disk.exists() and old.path == str(here.disk) and old.had(str(link))


def test_removing(here: Here) -> None:
    old = here.leave()
    with moving.kept_open(old):
        moving.remove_old(here.state, old)
    assert list(here.disk.parent.iterdir()) == [] and here.records() == []
    moving.remove_old(here.state, old)


def test_a_disk_that_got_its_name_back_by_hand_is_not_removed(here: Here) -> None:
    old = here.leave()
    Path(old.aside).rename(here.disk)
    assert moving.has_name(old)
    moving.remove_old(here.state, old)
    assert here.disk.exists() and here.records() == []


def test_another_file_under_its_name_aside_is_not_removed(here: Here) -> None:
    old = here.leave()
    Path(old.aside).rename(here.disk.with_name("elsewhere"))
    Path(old.aside).write_bytes(b"mine")
    moving.remove_old(here.state, old)
    assert Path(old.aside).read_bytes() == b"mine"


@pytest.mark.parametrize("end", [moving.settle_aside, moving.remove_old])
def test_its_loop_device_is_detached_with_the_end_of_its_domain(
    here: Here, loop_device: Callable[[Path], Path], end: Callable[[Path, OldDisk], None]
) -> None:
    device = loop_device(here.disk)
    with open(device, "rb") as domain:
        old = here.leave()
        end(here.state, old)
        assert domain.read(8) == b"x" * 8 and attached(device, here.disk.parent)
    assert not attached(device, here.disk.parent)


def test_its_loop_device_stays_while_its_domain_may_stay(here: Here, loop_device: Callable[[Path], Path]) -> None:
    device = loop_device(here.disk)
    moving.give_back(here.state, here.leave())
    assert attached(device, here.disk.parent)


def test_a_device_has_no_name_to_give_up(here: Here, loop_device: Callable[[Path], Path]) -> None:
    device = loop_device(here.disk)
    old = here.leave(device)
    assert (old.storage, old.aside) == (DEVICE, str(device)) and "no name" in here.said[0]
    assert old.is_at(str(device)) and not old.is_at("/dev/null")


# -- volumes ---------------------------------------------------------------------------------------


def volume_of(lvm: Lvm) -> OldDisk:
    return moving.examine(str(lvm.device("g1")), 8 << 20, **ABOUT, unwanted=False)


@pytest.fixture
def as_device(lvm: Lvm, monkeypatch: pytest.MonkeyPatch) -> Lvm:
    """The stand-in's devices are files, which is not what they are to be taken for."""
    monkeypatch.setattr(stat, "S_ISREG", lambda mode: False)
    return lvm


def test_a_volume_there_and_back(here: Here, as_device: Lvm) -> None:
    found = volume_of(as_device)
    assert (found.storage, found.volume) == ("volume", VOLUME)
    moving.put_aside(here.state, found, here.said.append)
    (old,) = here.records()
    assert old.name == "g1"
    (name,) = as_device.names()
    assert name.startswith("g1.left-for-hostb-") and old.aside == str(as_device.device(name)) and not here.said
    assert as_device.device(name).exists() and not as_device.device("g1").exists()
    moving.settle_aside(here.state, old)
    assert not as_device.device(name).exists()
    assert moving.bytes_held(old) == 8 << 20
    for _ in range(2):
        moving.give_back(here.state, old)
        assert as_device.names() == ["g1"] and as_device.device("g1").exists() and here.records() == []


def test_a_volume_whose_guest_comes_back_and_does_not(here: Here, as_device: Lvm) -> None:
    moving.put_aside(here.state, volume_of(as_device), here.said.append)
    (old,) = here.records()
    moving.settle_aside(here.state, old)
    assert moving.lend_volume(here.state, old.path) and as_device.device("g1").exists()
    assert here.records() == [old] and old.is_at(str(as_device.device("g1")))
    for _ in range(2):
        moving.take_again(here.state, old)
        assert as_device.names() == [os.path.basename(old.aside)] and not list(
            as_device.device("g1").parent.iterdir()
        )


def test_a_volume_that_lvm_does_not_rename_is_recorded(here: Here, as_device: Lvm) -> None:
    found = volume_of(as_device)
    (as_device.folder / "bin" / "lvrename").write_text("#!/bin/sh\necho '  it is locked' >&2; exit 5\n")
    moving.put_aside(here.state, found, here.said.append)
    (old,) = here.records()
    assert old.aside == old.path and "it is locked" in here.said[0] and as_device.names() == ["g1"]


def test_a_volume_is_removed(here: Here, as_device: Lvm) -> None:
    moving.put_aside(here.state, volume_of(as_device), here.said.append)
    (old,) = here.records()
    moving.remove_old(here.state, old)
    assert as_device.names() == [] and here.records() == []


def test_lvm_fails(here: Here, as_device: Lvm) -> None:
    """Before anything is renamed, the volume is recorded; when it lies aside, it cannot be given back for now."""
    found = volume_of(as_device)
    broken = as_device.folder / "broken"
    broken.touch()
    moving.put_aside(here.state, found, here.said.append)
    (old,) = here.records()
    assert old.aside == old.path and "cannot be locked" in here.said[0] and as_device.device("g1").exists()
    assert moving.has_name(old) and moving.bytes_held(old) == 0
    broken.unlink()
    moving.put_aside(here.state, found, here.said.append)
    (old,) = here.records()
    broken.touch()
    with pytest.raises(ImageError, match="cannot be locked"):
        moving.give_back(here.state, old)
    assert here.records() == [old]


def test_lvm_fails_half_way(here: Here, as_device: Lvm) -> None:
    """It is not known what has become of the volume: the migration is given up."""
    found = volume_of(as_device)
    rename = as_device.folder / "bin" / "lvrename"
    rename.write_text(f"#!/bin/sh\ntouch '{as_device.folder}/broken'\nexit 5\n")
    with pytest.raises(ImageError, match="cannot be locked"):
        moving.put_aside(here.state, found, here.said.append)
    assert len(here.records()) == 1


# -- records ---------------------------------------------------------------------------------------


def test_the_newest_comes_first(here: Here) -> None:
    for number in (1, 3, 2):
        old = OldDisk("/a", f"/a.{number}", FILE, 1, "g1", "u", "b", f"m{number}", float(number))
        old_disk.write(here.state, old)
    assert [old.left for old in old_disk.those_of(here.state, "/a")] == [3, 2, 1]
    assert [old.left for old in old_disk.of_migration(here.state, "m2")] == [2]


def test_a_returning_guest_is_noted_with_each_of_its_disks(here: Here) -> None:
    old = here.leave()
    old_disk.mark_returning(here.state, "other", "m9")
    assert here.records() == [old]
    old_disk.mark_returning(here.state, "u", "m9")
    assert here.records() == [replace(old, returning="m9")]


@pytest.mark.parametrize(
    ("before", "after"),
    [('"format": 1', '"format": 2'), ('"size": 8192', '"size": "x"'), ('"storage": "file"', '"storage": "tape"'),
     ('"path"', '"way"'), ('"guest": "g1"', '"guest": null'), ("{", "["), ('"migration": "m"', '"migration": "n"')],
)  # fmt: skip
def test_an_invalid_record_is_reported(here: Here, before: str, after: str) -> None:
    here.leave()
    (path,) = (here.state / old_disk.FOLDER).iterdir()
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    found, ((bad, why),) = old_disk.read_all(here.state)
    assert not found and bad == path and why
