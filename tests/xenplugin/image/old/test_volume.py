"""Logical volumes by the stand-in for LVM. test_xen_old_disks.py (end_to_end/lab) does the same by the real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import lvm_cases
from tests.fakes.lvm import UUID, Lvm
from xenplugin.errors import ImageError
from xenplugin.image.old import volume


@pytest.fixture
def lvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lvm:
    made = Lvm(tmp_path / "lvm", monkeypatch)
    made.add("other")
    return made


def test_the_stand_in_does_what_lvm_does(lvm: Lvm) -> None:
    assert lvm_cases.steps(UUID) == lvm_cases.EXPECTED


def test_no_lvm_here(lvm: Lvm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ImageError, match="cannot start lvs") as failed:
        volume.find(UUID)
    assert failed.value.hint == "install lvm2"


def test_output_that_is_no_list(lvm: Lvm) -> None:
    for text in ("", "[]", '{"report": 5}', '{"report": [{"lv": [{"vg_name": "vg0"}]}]}'):
        (lvm.folder / "bin" / "lvs").write_text(f"#!/bin/sh\necho '{text}'\n")
        with pytest.raises(ImageError, match="something other"):
            volume.find(UUID)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (f"LVM-{UUID}", UUID), (f"LVM-{UUID}-cow", None), (f"LVM-{UUID}-real", None), ("CRYPT-LUKS2-1", None),
        ("", None), (None, None),
    ],
)  # fmt: skip
def test_a_volume_is_told_from_other_devices(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loop_device: Callable[[Path], Path],
    kind: str | None,
    found: str | None,
) -> None:
    (tmp_path / "image").write_bytes(bytes(8192))
    device = loop_device(tmp_path / "image")
    number = device.stat().st_rdev
    place = tmp_path / f"{number >> 8}:{number & 255}" / "dm"
    place.mkdir(parents=True)
    if kind is not None:
        (place / "uuid").write_text(f"{kind}\n")
    monkeypatch.setattr(volume, "SYSFS", str(tmp_path))
    assert volume.uuid_of(str(device)) == found
    assert volume.uuid_of(str(tmp_path / "image")) is None and volume.uuid_of("/nonexistent") is None
