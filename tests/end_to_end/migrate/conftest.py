"""Two fake Xen hosts for each test (tests/fakes)."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.world import World


@pytest.fixture
def world() -> Iterator[World]:
    """Fails the test if a process is left, or if a guest ever ran twice or lost a write."""
    folder = Path(tempfile.mkdtemp(prefix="xw-"))  # short: sockets' names are
    made = World(folder, uuid.uuid4().hex)
    yield made
    left = made.close()
    violations = made.violations()
    shutil.rmtree(folder)
    assert not violations, violations
    assert not left, f"left running: {left}"
