"""How a device allocates its space, by what /sys says of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xenplugin.geometry import CHUNK
from xenplugin.image.target import allocation
from xenplugin.image.target.allocation import Allocation

KIB = 1024


@pytest.mark.parametrize(
    ("granularity", "most", "expected"),
    [
        (4 * KIB, 1 << 32, Allocation(True, 0)),  # a loop device
        (512, 1 << 31, Allocation(True, 0)),  # an SSD
        (64 * KIB, 1 << 26, Allocation(True, 0)),  # thin volumes
        (CHUNK, 1 << 30, Allocation(True, 0)),
        (192 * KIB, 1 << 28, Allocation(False, 1)),
        (4 * CHUNK, 1 << 32, Allocation(False, 4)),
        (4096, 0, Allocation(False, 0)),  # a hard disk, whatever it calls its granularity
        (0, 0, Allocation(False, 0)),
    ],
)
def test_the_unit_of_discards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granularity: int, most: int, expected: Allocation
) -> None:
    device = make_device(tmp_path, monkeypatch, granularity, most)
    assert Allocation.of(os.makedev(250, 1)) == expected
    (device / "part").mkdir()
    (tmp_path / "dev" / "block" / "250:2").symlink_to(device / "part")
    assert Allocation.of(os.makedev(250, 2)) == expected
    (device / "part" / "discard_alignment").write_text("512\n")
    assert not Allocation.of(os.makedev(250, 2)).sparse


def test_a_thin_volume_that_ignores_discards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapped device above a mapped device, such as a thin pool, of units that are not known."""
    device = make_device(tmp_path, monkeypatch, 0, 0)
    (device / "slaves" / "dm-3").mkdir(parents=True)
    assert Allocation.of(os.makedev(250, 1)) == Allocation(False, 1024)


def make_device(sys: Path, monkeypatch: pytest.MonkeyPatch, granularity: int, most: int) -> Path:
    monkeypatch.setattr(allocation, "_SYS", str(sys))
    device = sys / "device"
    (device / "queue").mkdir(parents=True)
    (device / "queue" / "discard_granularity").write_text(f"{granularity}\n")
    (device / "queue" / "discard_max_bytes").write_text(f"{most}\n")
    (sys / "dev" / "block").mkdir(parents=True)
    (sys / "dev" / "block" / "250:1").symlink_to(device)
    return device
