from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.results import matrix


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of made-up results: six ways at three RTTs."""
    return matrix(tmp_path / "results")
