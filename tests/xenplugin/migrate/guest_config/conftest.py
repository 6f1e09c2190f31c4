"""Where a configuration file arrives."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import guest_files
from tests.xenplugin.migrate.guest_config.arrival import Arrival
from xenplugin.migrate.guest_config import arriving_config


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(arriving_config, "find", lambda: "xl")
    return guest_files.install(tmp_path / "xen", monkeypatch)


@pytest.fixture
def arrival(folder: Path, tmp_path: Path) -> Arrival:
    return Arrival(folder, tmp_path / "state")
