"""Guests whose disks have names that are not UTF-8, or as long as names can be."""

from __future__ import annotations

import json
import os

import pytest

from tests.fakes.world import World


@pytest.mark.parametrize("end", [b"\xff\xc3.img", 251 * b"x"], ids=["not-utf-8", "255-bytes"])
def test_a_guest_goes_and_comes_back(world: World, end: bytes) -> None:
    world.create(mib=32, end=os.fsdecode(end))
    name = os.fsencode(world.names[0][0])
    world.moved()
    (aside,) = os.listdir(bytes(world.a.root / "disks"))
    assert len(aside) <= 255 and aside.startswith(name[:200]) and b".left-for-hostb-" in aside
    rows = json.loads(world.a.run("xenplugin", "status", "--json").out)
    (row,) = [row for row in rows if row["kind"] == "aside"]
    assert os.path.basename(os.fsencode(row["aside"])) == aside
    assert os.path.basename(os.fsencode(row["path"])) == name
    world.await_writes()
    (disk,) = world.moved(there=world.a).result["disks"]
    assert disk["bytes_wire"] < 12 << 20  # of 16 MiB of noise: the old disk was the base
    world.await_writes()
    assert name in os.listdir(bytes(world.a.root / "disks"))
    assert not world.violations()
