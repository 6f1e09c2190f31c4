"""The demo's image: built once, kept, never half."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("scapy", reason="the demo's check needs the lab extra")

from demo import DemoError, image
from lab.measure import images

MKFS = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
needs_mkfs = pytest.mark.skipif(MKFS is None, reason="mkfs.ext4 is not installed")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small recipe, a small /usr, a cache of its own, and no mmdebstrap."""
    usr = tmp_path / "usr"
    for number in range(20):
        path = usr / f"folder-{number % 3}" / f"file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1000 * number))
    (usr / "link").symlink_to("nowhere")
    monkeypatch.setattr(image, "_USR", usr)
    monkeypatch.setattr(image, "SIZE", 32 << 20)
    monkeypatch.setattr(image, "_NEEDED", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("shutil.which", lambda name, path=None: None if name == "mmdebstrap" else MKFS)
    return tmp_path / "cache" / "xenplugin"


@needs_mkfs
def test_built_once_then_from_the_cache(home: Path) -> None:
    said: list[str] = []
    first = image.obtain(said.append)
    assert first.size == first.path.stat().st_size == 32 << 20
    assert first.allocated < first.size
    with first.path.open("rb") as file:
        for canary, at in zip(first.canaries, first.canary_at, strict=True):
            file.seek(at)
            assert file.read(len(canary)) == canary
    assert subprocess.run(["sha256sum", first.path], capture_output=True, text=True).stdout[:64] == first.sha256
    built = first.path.stat().st_mtime_ns
    said.clear()
    assert image.obtain(said.append) == first
    assert first.path.stat().st_mtime_ns == built
    assert any("cache" in line for line in said)
    assert [path.name for path in home.iterdir()] == [first.path.parent.name]


@needs_mkfs
def test_a_build_that_fails_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "sha256", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        image.obtain(lambda text: None)
    assert list(home.iterdir()) == []


@needs_mkfs
def test_folders_of_ended_processes_are_removed_and_others_kept(home: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    for name in (f"building-{dead.pid}", f"run-{dead.pid}-x", f"run-{os.getppid()}-y"):
        (home / name).mkdir(parents=True)
    image.obtain(lambda text: None)
    left = {path.name for path in home.iterdir() if not path.name.startswith("usr-")}
    assert left == {f"run-{os.getppid()}-y"}


@needs_mkfs
def test_a_damaged_cache_entry_is_one_error(home: Path) -> None:
    found = image.obtain(lambda text: None)
    os.truncate(found.path, 5)
    with pytest.raises(DemoError, match="delete it"):
        image.obtain(lambda text: None)


def test_no_room_is_one_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "_NEEDED", 1 << 60)
    with pytest.raises(DemoError, match="XDG_CACHE_HOME"):
        image.obtain(lambda text: None)
