"""What is missing for images in other formats than raw is named, with its package."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest

from xenplugin.errors import RefusedError
from xenplugin.image.formats import installed, nbd


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in PATH; it has the programs."""
    for name in ("qemu-img", "qemu-storage-daemon"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nbd, "library", lambda: None)
    return tmp_path


@pytest.mark.parametrize("name", ["qemu-img", "qemu-storage-daemon"])
def test_a_program(programs: Path, name: str) -> None:
    installed.refuse_missing()
    (programs / name).unlink()
    with pytest.raises(RefusedError, match=f"need {name}, which is not on this host") as caught:
        installed.refuse_missing()
    assert "qemu-utils" in (caught.value.hint or "")


def test_the_library(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    nbd.library.cache_clear()

    def none(_: str) -> None:
        raise OSError

    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(ctypes, "CDLL", none)
    with pytest.raises(RefusedError, match="need libnbd") as caught:
        installed.refuse_missing()
    assert "libnbd0" in (caught.value.hint or "")
