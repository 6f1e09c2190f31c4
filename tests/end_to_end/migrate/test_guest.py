"""What guests have, what xl is asked for, and what is refused: between two fake Xen hosts."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.world import MIB, World
from tests.helpers.program import Done, Running, wait_until


def stays(world: World, running: Running, code: int) -> Done:
    """The migration fails with `code`, the guest goes on where it was, and nothing is left."""
    done = running.end()
    assert done.code == code, f"exit {done.code}: {done.err}"
    world.await_quiet()
    world.assert_intact(world.a)
    world.assert_settled()
    assert done.hint, done.err
    return done


# -- disks -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_disks_one_of_which_is_only_read(world: World) -> None:
    world.create(disks=3, mib=2, read_only=1)
    result = world.moved().result
    world.assert_intact(world.b)
    assert result["bytes_image"] == 6 * MIB and len(result["disks"]) == len(result["sha256"]) == 3


def test_a_guest_without_a_disk(world: World) -> None:
    world.create(disks=0)
    assert world.moved().result["bytes_image"] == 0
    world.assert_intact(world.b)
    world.assert_settled()


@pytest.mark.slow
def test_an_old_copy_is_the_base_of_a_difference(world: World) -> None:
    world.create()
    old = bytearray(world.bases["g1-0.img"])
    old[:5] = b"older"
    world.b.disk("g1-0.img").write_bytes(old)
    result = world.moved("--mode", "static").result
    world.assert_intact(world.b)
    assert result["disks"][0]["bytes_wire"] < 1.6 * MIB


@pytest.mark.slow
def test_a_larger_image_at_the_far_side_is_kept(world: World) -> None:
    world.create()
    world.b.disk("g1-0.img").write_bytes(bytes(5 * MIB))
    assert "larger" in stays(world, world.migrate(), 15).error
    assert world.b.disk("g1-0.img").stat().st_size == 5 * MIB


@pytest.mark.slow
def test_a_target_in_use(world: World) -> None:
    world.create()
    target = world.b.disk("g1-0.img")
    target.write_bytes(bytes(MIB))
    with target.open("rb"):
        assert "in use" in stays(world, world.migrate(), 15).error
    assert target.stat().st_size == MIB


@pytest.mark.slow
def test_a_format_that_is_not_raw(world: World) -> None:
    world.create()
    with open(world.a.root / "state.json") as file:
        state = json.load(file)
    state["domains"][0]["config"]["disks"][0]["format"] = "qcow2"
    (world.a.root / "state.json").write_text(json.dumps(state))
    assert "qcow2" in stays(world, world.migrate(), 15).error


@pytest.mark.slow
def test_the_far_disk_is_full(world: World, small_disk: Callable[[int], Path]) -> None:
    world.create()
    world.b.configure(paths={str(world.a.root / "disks"): str(small_disk(1))})
    assert "free for" in stays(world, world.migrate(), 15).error
    assert "space" in stays(world, world.migrate("--force", "room"), 13).error


@pytest.mark.slow
def test_the_disk_shrinks(world: World) -> None:
    """Somebody truncates the file of a guest that runs: whatever comes of it, it stays here."""
    world.create()
    world.a.stall("s.memory0")
    running = world.migrate()
    wait_until(lambda: world.a.reached("s.memory0"), "memory")
    os.truncate(world.a.disk("g1-0.img"), 2 * MIB)
    world.a.release("s.memory0")
    done = running.end()
    assert done.code == 13 and done.error
    world.await_quiet()
    assert world.home() is world.a
    (world.folder / "violations").unlink(missing_ok=True)


# -- how xl is asked -------------------------------------------------------------------------------


def by_hand(world: World, *options: str) -> Running:
    """xl migrate -s 'xenplugin transport' g1 hostb"""
    own = ["--mode", "static", "-s", world.ssh]
    ours = f"xenplugin transport {shlex.join(own)}"
    return world.a.start(world.a.root / "bin" / "xl", "migrate", *options, "-s", ours, "g1", "hostb")


@pytest.mark.slow
def test_xl_with_our_transport(world: World) -> None:
    world.create()
    done = by_hand(world).end()
    assert done.code == 0 and "Migration successful." in done.err
    world.assert_intact(world.b)
    world.assert_settled()


@pytest.mark.slow
def test_a_shell_between_xl_and_our_transport(world: World) -> None:
    """It waits for the transport, which waits for the end of xl, not of the shell."""
    world.create()
    script = world.a.root / "wrapped"
    script.write_text(f'#!/bin/sh\ncat | xenplugin transport -s {shlex.quote(world.ssh)} "$@"\n')
    script.chmod(0o755)
    done = world.a.start(world.a.root / "bin" / "xl", "migrate", "-s", script, "g1", "hostb").end()
    assert done.code == 0, done.err
    world.await_quiet()
    world.assert_intact(world.b)
    world.assert_settled()


def test_plain_xl_migrate_through_the_shim(world: World) -> None:
    world.create()
    world.a.run("xenplugin", "enable")
    shim = world.a.root / "sbin" / "xl"
    assert "g1" in world.a.start(shim, "list").end().out
    assert json.loads(world.a.run("xenplugin", "status", "--json").out)[0] == {"kind": "host", "enabled": True}
    done = world.a.start(shim, "migrate", "-s", world.ssh, "g1", "hostb").end()
    assert done.code == 0 and "Migration successful." in done.err, done.err
    world.assert_intact(world.b)
    world.assert_settled()
    world.a.run("xenplugin", "disable")
    assert not shim.exists()


@pytest.mark.slow
def test_the_shim_ends_as_xl_does(world: World) -> None:
    world.create()
    world.a.run("xenplugin", "enable")
    running = world.a.start(world.a.root / "sbin" / "xl", "migrate", "-s", "false", "g1", "hostb")
    done = running.end()
    assert done.code == 1 and done.error
    world.assert_intact(world.a)


@pytest.mark.slow
def test_paused_it_stays_paused(world: World) -> None:
    world.create()
    world.moved("-p")
    assert world.b.states() == {"g1": "paused"} and not world.a.states()
    world.assert_settled()
    world.b.run("xl", "unpause", "g1")
    world.assert_intact(world.b)


@pytest.mark.slow
def test_options_of_xl_reach_it(world: World) -> None:
    world.create()
    config: dict[str, Any] = world.a.domains()[0]["config"]
    config["b_info"]["max_memkb"] = 300_000
    (world.folder / "other.json").write_text(json.dumps(config))
    world.b.stall("r.banner")
    running = world.migrate("-C", str(world.folder / "other.json"), "-e", "--debug")
    wait_until(lambda: world.pids("far-xl"), "the far xl")
    (words,) = [words for words in world.processes().values() if "migrate-receive" in words and "-IS" in words]
    world.b.release("r.banner")
    assert words[words.index("migrate-receive") :] == ["migrate-receive", "-e", "-d"]
    assert running.end().code == 0
    assert world.assert_intact().domains()[0]["config"]["b_info"]["max_memkb"] == 300_000


@pytest.mark.slow
def test_its_domain_id_is_kept(world: World) -> None:
    world.create()
    for _ in range(3):
        world.b.run("xl", "create", "-p", str(world.folder / "g1.json"), code=None)
        world.b.run("xl", "destroy", "g1", code=None)
    here = world.a.domains()[0]["domid"]
    world.moved("-D")
    assert world.assert_intact().domains()[0]["domid"] == here


# -- what is refused -------------------------------------------------------------------------------


def test_no_such_guest(world: World) -> None:
    done = world.migrate(guest="g9").end()
    assert done.code == 15 and "g9" in done.error


@pytest.mark.slow
def test_its_name_is_taken_at_the_far_side(world: World) -> None:
    world.create()
    config = world.a.domains()[0]["config"]
    config = {"c_info": {**config["c_info"], "uuid": config["c_info"]["uuid"][:-1] + "9"}, "b_info": {}}
    (world.folder / "twin.json").write_text(json.dumps(config))
    world.b.run("xl", "create", "-p", str(world.folder / "twin.json"))
    done = world.migrate().end()
    assert done.code == 15 and "g1" in done.error and done.hint
    world.await_quiet()
    world.b.run("xl", "destroy", "g1")
    world.assert_intact(world.a)
    world.assert_settled()


def test_a_far_side_without_the_plugin(world: World) -> None:
    world.create()
    done = stays(world, world.migrate("--remote-program", "/nowhere/xenplugin"), 11)
    assert "install xenplugin" in done.hint


@pytest.mark.slow
def test_a_host_that_cannot_be_reached(world: World) -> None:
    world.create()
    world.cut()
    done = world.migrate().end()
    assert done.code == 14 and "No route" in done.error
    world.mend()
    world.assert_intact(world.a)


@pytest.mark.slow
def test_a_far_side_without_xl(world: World) -> None:
    world.create()
    (world.b.root / "bin" / "xl").unlink()
    assert "no xl" in stays(world, world.migrate(), 15).error


@pytest.mark.slow
@pytest.mark.parametrize("point", ["s.memory0", "s.received"])
def test_the_same_guest_twice_at_once(world: World, point: str) -> None:
    """The second is refused before it starts an xl, which would resume what the first has suspended; one that was
    started by hand ends before it touches the guest."""
    world.create()
    world.a.stall(point)
    first = world.migrate()
    wait_until(lambda: world.a.reached(point), point)
    for second in (world.migrate(), world.migrate("--mode", "static")):
        done = second.end()
        assert done.code == 15 and "already" in done.error and not any(e["event"] == "xl" for e in done.events)
    done = by_hand(world).end()
    assert done.code != 0 and "already" in done.err
    world.a.release(point)
    assert first.end().code == 0
    world.assert_intact(world.b)
    world.assert_settled()


# -- ctrl-C ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_interrupted_migration_is_resumed_later(world: World) -> None:
    world.create(mib=8)
    running = world.migrate("--rate", "8mbit")
    running.await_event(lambda event: event["event"] == "progress" and event["bytes_done"] > 3 * MIB)
    running.signal(signal.SIGINT)
    stays(world, running, 130)
    rows = json.loads(world.b.run("xenplugin", "status", "--json").out)
    assert [row["kind"] for row in rows] == ["host", "image"]
    assert world.moved().result["resumed"] > 0
    world.assert_intact(world.b)
    world.assert_settled()
