"""A guest moves with its disks, between two fake Xen hosts: every mode, there and back."""

from __future__ import annotations

import pytest

from tests.fakes.world import World

MODES = ["live", pytest.param("static", marks=pytest.mark.slow), pytest.param("full", marks=pytest.mark.slow)]


@pytest.mark.parametrize("mode", MODES)
def test_there_and_back(world: World, mode: str) -> None:
    world.create()
    done = world.moved("--mode", mode)
    assert world.assert_intact() is world.b
    world.assert_settled()
    result = done.result
    assert result["mode"] == mode and result["bytes_image"] == 4 << 20 and result["downtime"] > 0
    back = world.moved("--mode", mode, there=world.a)
    assert world.assert_intact() is world.a
    world.assert_settled()
    assert mode == "full" or back.result["bytes_wire"] < done.result["bytes_wire"]
