"""Fixtures of the tests that copy images by the real program."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.images import make_image


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path / "source.img")
