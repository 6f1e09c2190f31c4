"""Fixtures of the tests of link."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from xenplugin.link import pool as pool_module

from .pool_kit import Clockwork, World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.pool.close()


@pytest.fixture
def clockwork(world: World, monkeypatch: pytest.MonkeyPatch) -> Clockwork:
    made = Clockwork()
    monkeypatch.setattr(pool_module, "time", type("time", (), {"monotonic": lambda: made.now}))
    world.pool._closed = made
    world.pool._alive_at = made.now
    return made
