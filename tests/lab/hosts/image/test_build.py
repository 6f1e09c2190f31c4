"""The cache of images: complete images are used, others are removed, and two builds do not run at once."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from pathlib import Path

import pytest

from lab.errors import BuildError, MissingError
from lab.hosts.image import build, recipe
from lab.hosts.spec import Xen

XEN = Xen.V4_17


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "missing", list)
    monkeypatch.setattr(build, "_NEEDED", 1)
    return tmp_path / "xenplugin/lab"


def whole(entry: Path, size: int | None = None) -> None:
    entry.mkdir(parents=True)
    with (entry / "disk.img").open("wb") as file:
        file.truncate(recipe.SIZE if size is None else size)
    about = {"release": "bookworm", "digest": recipe.digest(XEN), "packages": {"xen-utils-4.17": "4.17"}}
    (entry / "about.json").write_text(json.dumps(about))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A build that only records which of its parts were run."""
    parts: list[str] = []

    def install(self: build._Build, target: Path) -> None:
        parts.append("packages")
        target.write_text("tar")

    def assemble(self: build._Build, packages: Path) -> Path:
        parts.append("image")
        assert packages.exists()
        whole(self._work / "new")
        entry = build._entry(XEN)
        (self._work / "new").rename(entry)
        return entry

    monkeypatch.setattr(build._Build, "_install", install)
    monkeypatch.setattr(build._Build, "_assemble", assemble)
    return parts


def test_what_is_in_the_cache_is_not_built_again(home: Path, quick: list[str]) -> None:
    first = build.obtain(XEN, lambda _: None)
    assert build.obtain(XEN, lambda _: None) == first
    assert quick == ["packages", "image"]
    assert first.packages == {"xen-utils-4.17": "4.17"}


def test_a_change_of_our_files_takes_the_packages_from_the_cache(
    home: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build.obtain(XEN, lambda _: None)
    monkeypatch.setattr(recipe, "SIZE", recipe.SIZE + 4096)
    build.obtain(XEN, lambda _: None)
    assert quick == ["packages", "image", "image"]


def test_what_an_interrupted_build_left_is_removed(home: Path, quick: list[str]) -> None:
    ruin = home / "building-4.17/tree"
    ruin.mkdir(parents=True)
    said: list[str] = []
    build.obtain(XEN, said.append)
    assert not ruin.exists()
    assert any("interrupted" in words for words in said)


def test_a_build_that_fails_leaves_nothing_that_looks_like_an_image(
    home: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: build._Build, packages: Path) -> Path:
        (self._work / "new").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build._Build, "_assemble", full)
    with pytest.raises(BuildError, match="No space left"):
        build.obtain(XEN, lambda _: None)
    assert build.cached(XEN) is None
    assert not (home / "building-4.17").exists()


def test_another_build_is_waited_for_and_its_image_used(home: Path, quick: list[str]) -> None:
    home.mkdir(parents=True)
    other = os.open(home / "4.17.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    waits, found = threading.Event(), []
    thread = threading.Thread(target=lambda: found.append(build.obtain(XEN, lambda _: waits.set())))
    thread.start()
    assert waits.wait(60)
    whole(build._entry(XEN))
    os.close(other)
    thread.join(60)
    assert found and quick == []


def test_no_room_and_missing_programs_are_said_before_anything_is_done(
    home: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_NEEDED", 1 << 60)
    with pytest.raises(MissingError, match="GiB free") as caught:
        build.obtain(XEN, lambda _: None)
    assert "XDG_CACHE_HOME" in str(caught.value.hint)
    monkeypatch.setattr(build, "missing", lambda: ["mmdebstrap is not installed (apt install mmdebstrap)"])
    with pytest.raises(MissingError, match="mmdebstrap"):
        build.obtain(XEN, lambda _: None)
    assert quick == []


@pytest.mark.parametrize("harm", ["size", "about", "nothing"])
def test_an_image_that_was_damaged_is_named(home: Path, harm: str) -> None:
    entry = build._entry(XEN)
    whole(entry, size=4096 if harm == "size" else None)
    if harm == "about":
        (entry / "about.json").write_text("{")
    if harm == "nothing":
        (entry / "disk.img").unlink()
    with pytest.raises(BuildError, match="cannot be used") as caught:
        build.obtain(XEN, lambda _: None)
    assert f"rm -r {entry}" in str(caught.value.hint)


def test_unused_images_are_deleted(home: Path, quick: list[str]) -> None:
    old, recent, other = (home / f"host-{name}" for name in ("4.17-old", "4.17-recent", "4.20-old"))
    for path in (old, recent, other):
        path.mkdir(parents=True)
    os.utime(old, (1, 1))
    os.utime(other, (1, 1))
    build.obtain(XEN, lambda _: None)
    assert [path.exists() for path in (old, recent, other)] == [False, True, True]


def test_the_digest_follows_content_and_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top = tmp_path / "guest"
    top.mkdir()
    (top / "a.py").write_text("1")
    monkeypatch.setattr(recipe, "GUEST", top)
    seen = {recipe.digest(XEN)}
    (top / "a.py").write_text("2")
    seen.add(recipe.digest(XEN))
    (top / "a.py").chmod(0o755)
    seen.add(recipe.digest(XEN))
    (top / "__pycache__").mkdir()
    (top / "__pycache__/a.pyc").write_text("no part of it")
    seen.add(recipe.digest(XEN))
    assert len(seen) == 3
    assert recipe.digest(Xen.V4_20) not in seen
