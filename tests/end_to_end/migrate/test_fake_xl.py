"""The fake xl does what the real one does (fakes/xlcases.py, which also runs in a real dom0)."""

from __future__ import annotations

import pytest

from tests.fakes import xlcases
from tests.fakes.world import World


@pytest.mark.parametrize("name", xlcases.CASES)
def test_case(world: World, name: str) -> None:
    guest = []
    if name.startswith("guest_"):
        world.create()
        guest = ["g1"]
    xlcases.CASES[name](str(world.a.root / "bin" / "xl"), *guest)
    if guest:
        world.assert_intact(world.a)
