"""The fake xl does what the real one does (tests/lab/fakexen/xl_cases.py, which also runs in a real dom0)."""

from __future__ import annotations

import pytest

from tests.fakes.world import World
from tests.lab.fakexen import xl_cases


@pytest.mark.parametrize("name", xl_cases.CASES)
def test_the_fake_xl_behaves_as_the_real_one(world: World, name: str) -> None:
    guest = []
    if name.startswith("guest_"):
        world.create()
        guest = ["g1"]
    xl_cases.CASES[name](str(world.a.root / "bin" / "xl"), *guest)
    if guest:
        world.assert_intact(world.a)
