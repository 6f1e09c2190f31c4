"""The cache of images: complete images are used, others are removed, and two builds do not run at once."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from lab.errors import BuildError, MissingError
from lab.hosts.image import build, recipe
from lab.hosts.spec import Xen

XEN = Xen.V4_17
NOW = datetime(2026, 11, 29, 16, 14, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "missing", list)
    monkeypatch.setattr(build, "_NEEDED", 1)
    return tmp_path / "xenplugin/lab"


@pytest.fixture(autouse=True)
def days(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is a day after the one before, the first one at NOW."""
    passed = count()

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return NOW + timedelta(days=next(passed))

    monkeypatch.setattr(build, "datetime", Clock)


def entry_of(home: Path, when: str = "20261129T161400Z") -> Path:
    return home / f"host-{XEN}-{recipe.digest(XEN)}-{when}"


def whole(entry: Path, size: int | None = None) -> None:
    entry.mkdir(parents=True)
    with (entry / "disk.img").open("wb") as file:
        file.truncate(recipe.SIZE if size is None else size)
    about = {
        "release": "bookworm",
        "version": "4.17.5-1",
        "guests": "pv",
        "digest": entry.name,
        "installed": NOW.isoformat(),
        "packages": {"xen-utils-4.17": "4.17"},
    }
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
        entry = entry_of(build.home(), packages.stem.rpartition("-")[2])
        whole(self._work / entry.name)
        (self._work / entry.name).rename(entry)
        return entry

    monkeypatch.setattr(build._Build, "_install", install)
    monkeypatch.setattr(build._Build, "_assemble", assemble)
    return parts


def test_what_is_in_the_cache_is_not_built_again(home: Path, quick: list[str]) -> None:
    first = build.obtain(XEN, lambda _: None)
    assert build.obtain(XEN, lambda _: None) == first
    assert quick == ["packages", "image"]
    assert first.packages == {"xen-utils-4.17": "4.17"}


def test_a_fresh_image_has_new_packages_and_leaves_the_old_one_to_its_machines(
    home: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = build.obtain(XEN, lambda _: None)
    fresh = build.obtain(XEN, lambda _: None, fresh=True)
    assert quick == ["packages", "image"] * 2
    assert fresh.disk != old.disk and old.disk.exists() and fresh.digest != old.digest
    assert build.cached(XEN) == build.obtain(XEN, lambda _: None) == fresh
    assert [path.name for path in home.glob("packages-*")] == [
        f"packages-4.17-{recipe.packages_digest(XEN)}-20261130T161400Z.tar"
    ]
    # Our own files change: still those packages, of that day.
    monkeypatch.setattr(recipe, "SIZE", recipe.SIZE + 4096)
    assert build.obtain(XEN, lambda _: None).disk.parent.name.endswith("-20261130T161400Z")
    assert quick == ["packages", "image"] * 2 + ["image"]


def test_an_image_says_what_it_has_and_how_old_that_is(home: Path) -> None:
    whole(entry_of(home))
    image = build.cached(XEN)
    assert image is not None
    ages = [image.words for _ in range(3)]
    assert ages == [
        f"Xen 4.17.5-1 on Debian bookworm, packages {age}, PV guests"
        for age in ("of today", "1 day old", "2 days old")
    ]


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
    whole(entry_of(home))
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


@pytest.mark.parametrize("harm", ["size", "about", "nothing", "guests"])
def test_an_image_that_was_damaged_is_named(home: Path, harm: str) -> None:
    entry = entry_of(home)
    whole(entry, size=4096 if harm == "size" else None)
    if harm == "about":
        (entry / "about.json").write_text("{")
    if harm == "guests":
        text = (entry / "about.json").read_text()
        (entry / "about.json").write_text(text.replace('"pv"', '"vax"'))
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
