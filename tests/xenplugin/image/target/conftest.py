"""An image to copy, and a place for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.image_kit import EXTENTS, SIZE, sparse_image


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return sparse_image(tmp_path / "image", SIZE, EXTENTS)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there" / "disk"
