"""Fixtures of the tests about recovery."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.xenplugin.migrate.two_hosts import (
    HostPair,
)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostPair:
    """Two hosts, each of which asks the other in this process."""
    made = HostPair(tmp_path)
    made.install(monkeypatch)
    return made


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until the test ends."""
    made = subprocess.Popen(["sleep", "600"])
    yield made
    made.kill()
    made.wait()
