"""The estimate of a guest's move between two fake Xen hosts: in a plan, beside a move, and after one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.hosts import FakeHost
from tests.fakes.world import MIB, World

RANGES = {"seconds", "downtime_seconds", "bytes_wire", "rate_bytes_per_second"}


def plan(world: World, *options: str) -> Any:
    program = world.a.root / "bin" / "xenplugin"
    done = world.a.start(program, "plan", "--json", "-s", world.ssh, *options, "g1", "hostb").end()
    assert done.code == 0, done.err
    return json.loads(done.out)["estimate"]


def test_a_plan_says_what_moves_and_how_long_it_takes(world: World) -> None:
    world.create(disks=2)
    found = plan(world)
    for name in RANGES:
        assert 0 < found[name]["low"] <= found[name]["middle"] <= found[name]["high"], name
    assert list(found["phases_seconds"]) == ["connect", "disks", "memory", "stopped", "handover"]
    assert found["bytes_memory"] == 256 * MIB and found["bytes_compared"] == 8 * MIB
    assert [disk["name"] for disk in found["disks"]] == ["xvda", "xvdb"]
    for disk in found["disks"]:  # half of each is noise, the rest zeros
        assert disk["bytes_image"] == 4 * MIB and disk["bytes_known"]["middle"] == 0
        assert disk["bytes_to_send"]["middle"] == pytest.approx(2 * MIB, rel=0.2)
    (unknown,) = found["assumptions"]
    assert "memory" in unknown
    assert not list((world.b.root / "disks").iterdir()) and world.b.records() == {}
    world.await_quiet()
    world.assert_intact(world.a)


def test_a_guest_that_stands_still_for_its_disks_is_suspended_longer(world: World) -> None:
    world.create(mib=64)
    live, static = plan(world, "--rate", "40mbit"), plan(world, "--rate", "40mbit", "--mode", "static")
    assert "disks" not in static["phases_seconds"]
    assert static["downtime_seconds"]["middle"] > live["downtime_seconds"]["middle"] + 2


def test_what_the_far_host_has_is_known_on_the_way_back(world: World) -> None:
    world.create(mib=32)
    world.moved()
    program = world.b.root / "bin" / "xenplugin"
    done = world.b.start(program, "plan", "--json", "-s", world.ssh, "g1", "hosta").end()
    (disk,) = json.loads(done.out)["estimate"]["disks"]
    assert disk["bytes_known"]["middle"] > disk["bytes_to_send"]["middle"]
    world.assert_intact(world.b)


def test_a_move_says_the_same_and_is_learnt_from(world: World) -> None:
    world.create()
    assert plan(world)["assumptions"]
    done = world.moved("--json", "--log-json")
    world.assert_intact(world.b)
    result = json.loads(done.out)
    (event,) = [event for event in done.events if event["event"] == "estimated"]
    assert result["estimate"] == event["estimate"] and event["estimate"]["bytes_memory"] == 256 * MIB
    world.moved(there=world.a)
    found = plan(world)
    assert found["assumptions"] == []
    assert found["seconds"]["high"] - found["seconds"]["low"] < (
        event["estimate"]["seconds"]["high"] - event["estimate"]["seconds"]["low"]
    )
    world.assert_settled()


def cannot_measure(host: FakeHost) -> None:
    """The far side of an estimate does not start on `host`, as with an older program there."""
    program = host.root / "bin" / "xenplugin"
    text = program.read_text()
    program.write_text(text.replace("import sys\n", "import sys\nif 'measure' in sys.argv: sys.exit(9)\n", 1))
    assert program.read_text() != text


def test_a_move_whose_estimate_fails_goes_on_without(world: World) -> None:
    world.create()
    cannot_measure(world.b)
    done = world.moved("--json", "--log-json")
    assert json.loads(done.out)["estimate"] is None
    assert not [event for event in done.events if event["event"] in ("estimated", "failed")]
    world.assert_intact(world.b)


def test_a_plan_whose_estimate_fails_is_still_a_plan(world: World) -> None:
    world.create()
    cannot_measure(world.b)
    ours = world.a.root / "bin" / "xenplugin"
    done = world.a.start(ours, "plan", "--json", "--log-json", "-s", world.ssh, "g1", "hostb").end()
    assert done.code == 0 and json.loads(done.out)["estimate"] is None
    assert "no estimate can be made" in done.notices()


def test_a_refused_plan_measures_nothing(world: World) -> None:
    world.create()
    (world.b.root / "disks").rmdir()
    program = world.a.root / "bin" / "xenplugin"
    done = world.a.start(program, "plan", "--json", "-s", world.ssh, "g1", "hostb").end()
    assert done.code == 15 and json.loads(done.out)["estimate"] is None
