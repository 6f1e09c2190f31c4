"""Shared storage is recognized by markers beside a disk, at the far side."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.errors import PeerError, RefusedError
from xenplugin.image.safety import identity, shared_storage
from xenplugin.image.safety.shared_storage import Sharing, compare, marked, refuse_declared, refuse_shared


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "pool" / "g1.img"
    path.parent.mkdir()
    path.write_bytes(b"disk")
    return path


def far(description: dict[str, Any]) -> dict[str, Any]:
    """Return the description as another machine would see it: names of this kernel do not match there."""
    own, below = ([n for n in description[key] if not identity.is_local(n)] for key in ("own", "below"))
    return {**description, "own": own, "below": below}


def look(disk: Path, target: Path, live: bool = True) -> bool:
    with marked(str(disk), live=live, local=False, notice=pytest.fail) as description:
        return refuse_shared(far(description), str(target), live=live)


def test_the_same_path_is_refused(disk: Path) -> None:
    with pytest.raises(RefusedError, match=r"source disk itself.*both hosts share it") as info:
        look(disk, disk)
    assert f'shared = ["{disk}"]' in (info.value.hint or "")
    assert os.listdir(disk.parent) == ["g1.img"]


def test_the_same_file_by_another_path_is_refused(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "mnt").symlink_to(disk.parent)
    (tmp_path / "link.img").symlink_to(tmp_path / "mnt" / "g1.img")
    for target in (tmp_path / "mnt" / "g1.img", tmp_path / "link.img"):
        with pytest.raises(RefusedError, match="both hosts share it"):
            look(disk, target)
        with pytest.raises(RefusedError, match="both hosts share it"):
            look(target, disk)


def test_a_hard_link_in_the_shared_folder(disk: Path) -> None:
    other = disk.with_name("other.img")
    os.link(disk, other)
    with pytest.raises(RefusedError, match="both hosts share it"):
        look(disk, other)


def test_another_file_of_the_folder_is_another_disk(disk: Path) -> None:
    other = disk.with_name("g2.img")
    assert look(disk, other)
    other.write_bytes(b"other")
    assert look(disk, other)


def test_the_same_name_in_another_folder(disk: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "g1.img"
    assert look(disk, other)  # not even the folder is there
    other.parent.mkdir()
    other.write_bytes(b"other")
    assert look(disk, other)


def test_a_file_that_a_cache_does_not_know_yet(disk: Path) -> None:
    """A cache of the far side does not have the file: the folder and the name are enough."""
    with marked(str(disk), live=True, local=False, notice=pytest.fail) as description:
        disk.unlink()
        for name in ("g1.img", "G1.IMG"):
            with pytest.raises(RefusedError, match="both hosts share it"):
                refuse_shared(far(description), str(disk.with_name(name)), live=True)


def test_on_one_machine_the_file_decides_without_a_marker(disk: Path) -> None:
    with marked(str(disk), live=False, local=True, notice=pytest.fail) as description:
        assert os.listdir(disk.parent) == ["g1.img"]
        with pytest.raises(RefusedError) as info:
            refuse_shared(description, str(disk), live=False)
        assert "both hosts" not in str(info.value)
        assert refuse_shared(description, str(disk.with_name("copy.img")), live=False)


def test_the_marker_is_there_only_meanwhile(disk: Path) -> None:
    with marked(str(disk), live=True, local=False, notice=pytest.fail) as description:
        [(name, file, inode, own, family)] = description["markers"]
        assert (file, inode, family) == ("g1.img", disk.stat().st_ino, "")
        assert own == disk.with_name(name).stat().st_ino
        assert set(os.listdir(disk.parent)) == {"g1.img", name}
        with open(disk.parent / name) as marker, pytest.raises(BlockingIOError):
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert os.listdir(disk.parent) == ["g1.img"]


@pytest.mark.parametrize("kind", ["", "nfs"])
def test_markers_of_sessions_that_died_are_removed(disk: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, or after a day where another host's lock may not be seen."""

    def left(digit: str, days: float, text: str = "") -> Path:
        path = disk.with_name(".xenplugin-" + digit * 32)
        path.write_text(text)
        os.utime(path, (time.time() - days * 86400,) * 2)
        return path

    old, new, full, held = left("0", 2), left("1", 0), left("2", 2, "text"), left("3", 2)
    odd = disk.with_name(".xenplugin-x")
    odd.write_text("")
    os.utime(odd, (0, 0))
    monkeypatch.setattr(shared_storage, "family", lambda path: kind)
    with open(held) as marker:
        fcntl.flock(marker, fcntl.LOCK_EX)
        look(disk, disk.with_name("other.img"))
    assert set(disk.parent.iterdir()) == {disk, full, held, odd} | ({new} if kind else set())
    assert not old.exists()


def test_a_marker_that_another_session_takes_before_it_is_locked_is_made_anew(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, removed = fcntl.flock, list[str]()

    def late(fd: int, how: int) -> None:
        if not removed:
            removed.append(os.readlink(f"/proc/self/fd/{fd}"))
            os.remove(removed[0])
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with marked(str(disk), live=True, local=False, notice=pytest.fail) as description:
        [(name, *_)] = description["markers"]
        assert name != os.path.basename(removed[0]) and disk.with_name(name).exists()
    assert os.listdir(disk.parent) == ["g1.img"]


def test_where_no_marker_can_be_made(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refusing(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refusing)
    notices: list[str] = []
    with (
        pytest.raises(RefusedError, match=r"cannot find out.*Read-only") as info,
        marked(str(disk), live=True, local=False, notice=notices.append),
    ):
        pytest.fail("it went on")
    assert str(disk.parent) in (info.value.hint or "") and not notices
    with marked(str(disk), live=False, local=False, notice=notices.append) as description:
        assert description["markers"] == []
        assert not any(name.startswith("file") for name in description["own"])
    assert len(notices) == 1 and "Read-only" in notices[0]


def description(**fields: Any) -> dict[str, Any]:
    return {"own": [], "below": [], "device": False, "markers": [], **fields}


MARK: list[Any] = [".xenplugin-" + "0" * 32, "g1.img", 7]


@pytest.mark.parametrize(
    "what",
    [
        {},
        {**description(), "own": None},
        description(own="abc"),
        description(own=[1]),
        description(own=["x" * 97]),
        description(own=["new\nline"]),
        description(own=["\u00e9"]),
        description(own=["x"] * 100, below=["x"] * 29),
        description(device=1),
        description(markers=3),
        description(markers=[3]),
        description(markers=[MARK] * 17),
        description(markers=[["../" + MARK[0], *MARK[1:]]]),
        description(markers=[[MARK[0] + "\n", *MARK[1:]]]),
        description(markers=[[MARK[0], None, 7]]),
        description(markers=[[*MARK[:2], "7"]]),
        description(markers=[[*MARK, 8]]),
    ],
)
def test_a_malformed_disk_description_is_a_peer_error(what: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(PeerError):
        refuse_shared(what, str(tmp_path / "x"), live=True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(description(), JSON)))
def test_any_disk_description_is_accepted_or_a_peer_error(what: dict[str, Any]) -> None:
    try:
        assert refuse_shared(what, "/nonexistent/x", live=True) is True or what["device"]
    except PeerError:
        pass


NAMED = st.lists(st.sampled_from("abcd"), max_size=3)


@given(NAMED, NAMED, NAMED, NAMED)
def test_overlap_is_symmetric_and_siblings_do_not_overlap(
    own: list[str], below: list[str], other: list[str], under: list[str]
) -> None:
    one = identity.Identity(tuple(own), tuple(below), True)
    two = identity.Identity(tuple(other), tuple(under), True)
    assert identity.overlap(one, two) == identity.overlap(two, one)
    expected = set(own) & set(other) or set(own) & set(under) or set(other) & set(below)
    assert bool(identity.overlap(one, two)) == bool(expected)


def test_devices_that_cannot_be_identified(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = identity.Identity(("kernel z device 8:0",), (), True)
    known = identity.Identity(("wwid naa.5",), (), True)
    monkeypatch.setattr(shared_storage, "identify", lambda *_: unknown)
    assert not refuse_shared(description(own=["wwid naa.6"], device=True), "/dev/x", live=True)
    assert refuse_shared(description(own=["file x"]), "/dev/x", live=True)  # a file is no device
    monkeypatch.setattr(shared_storage, "identify", lambda *_: known)
    assert refuse_shared(description(own=["wwid naa.6"], device=True), "/dev/x", live=True)
    assert not refuse_shared(description(own=["kernel a device 8:0"], device=True), "/dev/x", live=True)


# -- the same file, beyond doubt ---------------------------------------------------------------------


@pytest.fixture
def on_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_storage, "family", lambda path: "nfs")


def known(disk: Path, target: Path, **change: Any) -> Sharing:
    """What the far side finds out; `change`: of the marker that the source describes."""
    with marked(str(disk), live=True, local=False, notice=pytest.fail) as description:
        names = ("name", "file", "inode", "own", "family")
        (mark,) = description["markers"]
        mark = [change.get(name, value) for name, value in zip(names, mark, strict=True)]
        return compare({**far(description), "markers": [mark]}, str(target), live=True)


@pytest.mark.usefixtures("on_nfs")
def test_a_file_on_a_network_file_system_is_proved_to_be_the_same(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "mnt").symlink_to(disk.parent)
    assert known(disk, disk) is known(disk, tmp_path / "mnt" / "g1.img") is Sharing.SAME
    assert known(disk, disk.with_name("g2.img")) is known(disk, tmp_path / "g1.img") is Sharing.APART
    with pytest.raises(RefusedError, match="both hosts share it"):  # it is no target
        look(disk, disk)


@pytest.mark.usefixtures("on_nfs")
@pytest.mark.parametrize("change", [{"inode": 1}, {"own": 1}, {"family": "ceph"}, {"family": ""}], ids=str)
def test_what_is_not_proved_is_refused(disk: Path, change: dict[str, Any]) -> None:
    """Another inode number: a copy of the folder, or of the whole disk of a host; another family: of the mount."""
    with pytest.raises(RefusedError, match="both hosts share it") as info:
        known(disk, disk, **change)
    assert "shared = [" in (info.value.hint or "")


def test_on_a_file_system_of_one_host_nothing_is_proved(disk: Path) -> None:
    with pytest.raises(RefusedError, match="both hosts share it"):
        known(disk, disk)
    with pytest.raises(RefusedError, match="both hosts share it"):
        known(disk, disk, family="nfs")  # here it is none


@pytest.mark.usefixtures("on_nfs")
@pytest.mark.root
def test_another_file_that_is_mounted_over_the_name(disk: Path) -> None:
    """Which may have the same inode number, on its own file system."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as other:
        subprocess.run(["mount", "--bind", other.name, disk], check=True)
        try:
            assert disk.stat().st_dev != disk.parent.stat().st_dev
            with pytest.raises(RefusedError, match="both hosts share it"):
                known(disk, disk)
        finally:
            subprocess.run(["umount", disk], check=True)


def declared(disk: Path, target: Path, size: int = 4) -> None:
    with marked(str(disk), live=True, local=False, notice=pytest.fail) as description:
        refuse_declared(far(description), str(target), size)


def test_a_declared_file(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "mnt").symlink_to(disk.parent)
    declared(disk, tmp_path / "mnt" / "g1.img", size=5)  # it may have grown
    copy = tmp_path / "copy" / "g1.img"
    with pytest.raises(RefusedError, match="is not there"):
        declared(disk, copy)
    copy.parent.mkdir()
    copy.write_bytes(b"disk")
    with pytest.raises(RefusedError, match="another disk than the guest's: a file that was made beside it") as info:
        declared(disk, copy)
    assert "take it out of `shared`" in (info.value.hint or "")


@pytest.mark.parametrize(
    ("own", "here", "size", "word"),
    [
        (["wwid naa.5000c500"], ["wwid naa.5000c500"], 4, ""),
        (["wwid naa.5000c500"], ["wwid naa.5000c501"], 4, "this one is wwid naa.5000c501"),
        (["wwid naa.5000c500"], ["serial 77"], 4, ""),  # nothing to compare
        (["drbd r0/0", "serial 1"], ["drbd r0/0", "serial 2"], 4, "this one is serial 2"),
        ([], [], 4, ""),
        ([], [], 5, "4 bytes instead of 5"),
    ],
)
def test_a_declared_device(
    disk: Path, monkeypatch: pytest.MonkeyPatch, own: list[str], here: list[str], size: int, word: str
) -> None:
    monkeypatch.setattr(shared_storage, "identify", lambda *_: identity.Identity(tuple(here), (), True))
    description = {"own": own, "below": [], "device": True, "markers": []}
    if not word:
        refuse_declared(description, str(disk), size)
        return
    with pytest.raises(RefusedError, match=word):
        refuse_declared(description, str(disk), size)


def test_a_declared_device_that_is_a_file_there(disk: Path) -> None:
    with pytest.raises(RefusedError, match="one of them is a file, the other a block device"):
        refuse_declared({"own": [], "below": [], "device": True, "markers": []}, str(disk), 4)
