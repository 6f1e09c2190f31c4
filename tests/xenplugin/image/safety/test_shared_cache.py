"""What a host has of a shared disk in its page cache: written back by the one, dropped by the other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xenplugin.errors import ImageError
from xenplugin.image.safety import shared_cache


def test_it_is_written_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "g1.img"
    disk.write_bytes(b"disk")
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.readlink(f"/proc/self/fd/{fd}")))
    shared_cache.flush(str(disk))
    assert flushed == [str(disk)]


def test_it_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "g1.img"
    disk.write_bytes(b"disk")
    advised = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *advice: advised.append(advice))
    shared_cache.forget(str(disk))
    assert advised == [(0, 0, os.POSIX_FADV_DONTNEED)]


@pytest.mark.parametrize("act", [shared_cache.flush, shared_cache.forget])
def test_a_disk_that_is_gone(tmp_path: Path, act: object) -> None:
    assert callable(act)
    with pytest.raises(ImageError, match=r"cannot (flush|examine) .*gone"):
        act(str(tmp_path / "gone"))
