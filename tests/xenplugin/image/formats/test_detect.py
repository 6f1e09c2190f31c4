"""Formats are told by their magic numbers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers.image_kit import sparse_image
from xenplugin.geometry import CHUNK
from xenplugin.image.formats.detect import Found, format_at

MAGIC = {
    "qcow2": (0, b"QFI\xfb"),
    "vhdx": (0, b"vhdxfile"),
    "vpc": (0, b"conectix"),
    "vmdk": (0, b"KDMV"),
    "vdi": (64, b"\x7f\x10\xda\xbe"),
    "qed": (0, b"QED\0"),
}


def found(path: Path) -> Found | None:
    with open(path, "rb") as file:
        return format_at(str(path), file.fileno(), os.path.getsize(path))


@pytest.mark.parametrize("name", MAGIC)
def test_a_format_is_told_by_its_head(tmp_path: Path, name: str) -> None:
    path = sparse_image(tmp_path / "i", 2 * CHUNK, [(CHUNK, 10)])
    with open(path, "r+b") as file:
        file.seek(MAGIC[name][0])
        file.write(MAGIC[name][1])
    assert found(path) == Found(name)


@pytest.mark.parametrize("size", [1024, 4096 + 100, CHUNK + 100, 2 * CHUNK])
@pytest.mark.parametrize("footer", [512, 511])
def test_a_fixed_vhd_is_told_by_its_footer(tmp_path: Path, size: int, footer: int) -> None:
    path = sparse_image(tmp_path / "i", size, [])
    with open(path, "r+b") as file:
        file.seek(size - footer)
        file.write(b"conectix")
    assert found(path) == Found("vpc", fixed=True)


@pytest.mark.parametrize("size", [0, 1, 511, 4096, CHUNK])
def test_everything_else_is_raw(tmp_path: Path, size: int) -> None:
    assert found(sparse_image(tmp_path / "i", size, [(0, size)])) is None
