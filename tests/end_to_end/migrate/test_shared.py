"""A guest on storage that both hosts share stays, unharmed."""

from __future__ import annotations

import pytest

from tests.fakes.world import World
from tests.helpers.images import names_in


@pytest.mark.parametrize("mode", ["live", "static", "full"])
def test_a_guest_whose_disk_the_far_host_has_already(world: World, mode: str) -> None:
    world.create(disks=2)
    ours, theirs = world.a.root / "disks", world.b.root / "disks"
    before = names_in(ours)
    theirs.rmdir()
    theirs.symlink_to(ours)
    done = world.migrate("--mode", mode).end()
    assert done.code == 15 and "for 2 reasons: target" in done.error
    said = [event for event in done.events if event["event"] == "checked"]
    assert len(said) == 2 and all("source disk itself" in one["text"] for one in said), said
    assert all("another host" in one["hint"] for one in said)
    world.await_quiet()
    world.assert_intact(world.a)
    world.assert_settled()
    assert names_in(ours) == before
