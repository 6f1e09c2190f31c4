"""Fixtures of the tests of transfers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.live_disk import Bench
from tests.helpers.program import ROOT


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XENSTORED_PATH", str(tmp_path / "no-xenstored"))
    made = Bench(tmp_path)
    yield made
    made.close()
