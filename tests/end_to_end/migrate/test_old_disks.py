"""What a guest leaves behind: it cannot be started by accident, and makes the way back short."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hosts import FakeHost
from tests.fakes.world import G1, MIB, World
from tests.helpers.program import wait_until

#: Kills the program when an old disk reaches the step `at` for the `times`-th time.
_KILL = """
import os, signal
from xenplugin.image.old import moving, old_disk
left = [{times}]
def dying(step, after):
    def stepped(*words):
        result = step(*words) if after else None
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result if after else step(*words)
    return stepped
module = old_disk if {name!r} in ("write", "forget") else moving
setattr(module, {name!r}, dying(getattr(module, {name!r}), {after}))
"""

_DIE_WITH_A_DRAFT = """
import os, signal
from xenplugin.image import files
rename = os.rename
def dying(source, target):
    if "/left/" in str(target):
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, target)
files.os.rename = dying
"""


def aside(host: FakeHost) -> list[Path]:
    return sorted((host.root / "disks").glob("*.left-for-*"))


def rows(host: FakeHost) -> list[dict[str, Any]]:
    return [row for row in json.loads(host.run("xenplugin", "status", "--json").out) if row["kind"] == "aside"]


def left(world: World, disks: int = 1) -> list[Path]:
    """The guest's disks on host a, from where it has moved to host b; host a is enabled."""
    world.create(disks=disks)
    world.moved()
    world.a.run("xenplugin", "enable")
    found = aside(world.a)
    assert len(found) == disks
    return found


def test_a_guest_that_has_left_cannot_be_started_here(world: World) -> None:
    (old,) = left(world)
    assert old.name.startswith("g1-0.img.left-for-hostb-20") and not world.a.disk("g1-0.img").exists()
    config = world.folder / "g1.json"
    words: list[str | Path] = [world.a.root / "bin" / "xl", "create", config]
    plain = subprocess.run(words, env=world.a.env, capture_output=True, text=True, timeout=60)
    assert plain.returncode != 0 and "failed to stat" in plain.stderr
    done = world.a.start(world.a.root / "sbin" / "xl", "create", config).end()
    assert done.code == 1 and "g1 left for hostb" in done.error and "xl migrate on hostb" in done.hint
    world.assert_intact(world.b)


def test_the_way_back_sends_what_has_changed(world: World) -> None:
    """And supersedes the old disk, whose owner and mode the new one gets."""
    (old,) = left(world)
    old.chmod(0o640)
    world.moved(there=world.a)
    assert aside(world.a) == [] and rows(world.a) == []
    assert world.a.disk("g1-0.img").stat().st_mode & 0o777 == 0o640
    assert len(aside(world.b)) == 1
    world.assert_intact(world.a)
    world.assert_settled()


def test_the_way_back_is_short(world: World) -> None:
    world.create(mib=8)
    there = world.moved("--mode", "static").result
    back = world.moved("--mode", "static", there=world.a).result
    # Half of it is noise, in a quarter of which the guest has written here and there.
    assert there["disks"][0]["bytes_wire"] > 3.5 * MIB
    assert back["disks"][0]["bytes_wire"] < 2.5 * MIB
    world.assert_intact(world.a)


def test_status_shows_it_and_clean_removes_it(world: World) -> None:
    (old,) = left(world)
    (row,) = rows(world.a)
    assert row["aside"] == str(old) and row["bytes"] > MIB and (row["guest"], row["peer"]) == ("g1", "hostb")
    assert "g1 left for hostb" in world.a.run("xenplugin", "status").out
    done = world.a.run("xenplugin", "clean", code=15)
    assert "--yes" in done.hint and old.exists()
    said = json.loads(world.a.run("xenplugin", "clean", "--yes", "--json").out)
    assert said["bytes"] == row["bytes"] and [one["aside"] for one in said["removed"]] == [str(old)]
    assert not old.exists() and rows(world.a) == []
    world.assert_intact(world.b)


def test_old_disks_that_are_not_wanted(world: World) -> None:
    world.a.configure(left_disks="remove")
    world.create()
    world.moved()
    assert list((world.a.root / "disks").iterdir()) == [] and rows(world.a) == []
    world.assert_intact(world.b)


@pytest.mark.slow
def test_a_disk_that_is_only_read_stays_as_it_is(world: World) -> None:
    """Other guests of this host may have it as well."""
    world.create(disks=2, read_only=1)
    world.moved()
    assert world.a.disk("g1-1.img").exists() and len(aside(world.a)) == 1


def test_a_symbolic_link(world: World) -> None:
    """The file gives up its name, so that the data cannot be reached by any path."""
    world.create()
    pool = world.a.root / "pool.img"
    disk = world.a.disk("g1-0.img")
    disk.rename(pool)
    disk.symlink_to(pool)
    world.moved()
    assert disk.is_symlink() and not disk.exists() and not pool.exists()
    world.moved(there=world.a)
    assert disk.is_symlink() and pool.exists()
    world.assert_intact(world.a)


@pytest.mark.slow
def test_a_name_that_is_taken_meanwhile(world: World) -> None:
    """The guest stays, and something else has its disk's name: 20, and nothing is overwritten."""
    world.create()
    world.b.stall("r.restored")
    running = world.migrate()
    wait_until(lambda: world.b.reached("r.restored") and bool(aside(world.a)), "the old disk aside")
    disk = world.a.disk("g1-0.img")
    disk.write_bytes(b"mine")
    world.kill("far-xl")
    done = running.end()
    assert done.code == 20 and str(disk) in done.error and "recover" in done.hint, done.err
    world.await_quiet()
    assert world.home() is world.a and disk.read_bytes() == b"mine"
    disk.unlink()
    world.a.recover()
    world.b.recover()
    world.assert_intact(world.a)
    world.assert_settled()


STEPS = [(name, after) for name in ("write", "rename_new", "sync_directory") for after in (False, True)]


@pytest.mark.slow
@pytest.mark.parametrize("disks", [1, 2])
@pytest.mark.parametrize(("name", "after"), STEPS)
def test_killed_while_it_is_put_aside(world: World, name: str, after: bool, disks: int) -> None:
    """The far guest has not been cleared: the guest stays, and has its disks."""
    world.create(disks=disks)
    world.a.patch(_KILL.format(name=name, after=after, times=disks))
    world.migrate().end()
    world.a.patch("")
    stays(world)


def test_no_draft_of_a_record_stays(world: World) -> None:
    """Killed when the record of an old disk is written, and has not got its name yet."""
    world.create()
    world.a.patch(_DIE_WITH_A_DRAFT)
    assert world.migrate().end().code != 0
    world.a.patch("")
    world.await_quiet()
    world.a.recover()
    assert not list((world.a.root / "state" / "left").iterdir())
    stays(world)


def test_a_host_that_died_as_it_started_the_guest_keeps_no_disk_under_its_name(world: World) -> None:
    """The guest has run there for a moment and written, before hosta could be told: it continues on hosta."""
    world.create()
    world.b.stall("r.started")
    running = world.migrate()
    wait_until(lambda: world.b.reached("r.started"), "the start there")
    there = world.b.disk("g1-0.img")
    begun = there.stat().st_mtime_ns
    wait_until(lambda: there.stat().st_mtime_ns != begun, "a write there")
    for who in ("receive-domain", "receive-disk", "far-xl", "transport", "supervisor"):
        world.kill(who)
    world.b.release("r.started")
    running.end()
    world.await_quiet()
    world.b.run("xl", "destroy", str(world.b.domains()[0]["domid"]))
    for host in (world.a, world.b):
        host.recover()
    wait_until(world.violations, "the guest's word that it has lost what it did there")
    (world.folder / "violations").unlink()
    assert world.home() is world.a and not there.exists() and len(aside(world.b)) == 1
    world.assert_settled()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "after"),
    [("rename_new", False), ("rename_new", True), ("sync_directory", True), ("forget", False), ("forget", True)],
)
def test_killed_while_it_is_given_back(world: World, name: str, after: bool) -> None:
    world.create(disks=2)
    world.b.stall("r.restored")
    running = world.migrate()
    wait_until(lambda: len(aside(world.a)) == 2, "both old disks aside")
    world.kill("transport")
    world.kill("supervisor")
    world.b.release("r.restored")
    running.end()
    world.await_quiet()
    for times in (1, 2):
        world.a.patch(_KILL.format(name=name, after=after, times=times))
        world.a.recover(code=None)
        world.a.patch("")
    stays(world)


def stays(world: World, order: Sequence[str] = "ab") -> None:
    world.await_quiet()
    for name in order:
        (world.a if name == "a" else world.b).recover()
    world.assert_intact(world.a)
    world.assert_settled()
    assert aside(world.a) == [] and rows(world.a) == []
    world.moved()
    world.assert_intact(world.b)


@pytest.mark.parametrize(
    ("program", "says"), [("sbin", "g1 left for hostb"), ("bin", "failed to stat")], ids=["guarded", "unguarded"]
)
def test_plain_xl_back_to_the_old_host(world: World, program: str, says: str) -> None:
    """From a host where the plugin is not enabled: the far xl refuses, and the guest goes on where it was."""
    left(world)
    script = world.b.root / "bin" / "plain"
    script.write_text(f'#!/bin/sh\nexec {world.ssh} "$1" {world.a.root}/{program}/xl migrate-receive\n')
    script.chmod(0o755)
    config = world.folder / "g1.json"  # with the paths of host a
    words: list[str | Path] = [world.b.root / "bin" / "xl", "migrate", "-C", config, "-s", script, "g1", "hosta"]
    plain = subprocess.run(words, env=world.b.env, capture_output=True, text=True, timeout=100)
    assert plain.returncode != 0 and says in plain.stderr, plain.stderr
    world.await_quiet()
    world.assert_intact(world.b)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["s.memory0", "s.stream", "s.renamed"])
def test_a_way_back_that_fails(world: World, point: str) -> None:
    """What lay aside still does, and what has arrived does as well: the guest runs on over there."""
    (old,) = left(world)
    before = old.read_bytes()
    world.b.stall(point)
    running = world.migrate(there=world.a)
    wait_until(lambda: world.b.reached(point), point)
    if point != "s.memory0":
        wait_until(lambda: world.a.disk("g1-0.img").stat().st_size > 0, "the disk")
    world.kill("receive-domain")
    world.b.release(point)
    assert running.end().code != 0
    world.await_quiet()
    for host in (world.b, world.a, world.b):
        host.recover(code=None)
    world.assert_intact(world.b)
    assert old.read_bytes() == before and not world.a.disk("g1-0.img").exists()
    config = world.folder / "g1.json"
    assert "g1 left for" in world.a.start(world.a.root / "sbin" / "xl", "create", config).end().error
    world.moved(there=world.a)
    assert aside(world.a) == []
    world.assert_intact(world.a)
    world.assert_settled()


@pytest.mark.slow
def test_a_guest_that_cannot_be_started_there(world: World) -> None:
    """Its disks had arrived; the far xl gives it back. The next try sends little."""
    world.create(mib=8)
    config = {"c_info": {"name": "g1", "uuid": G1[:-1] + "9"}, "b_info": {}}
    (world.folder / "twin.json").write_text(json.dumps(config))
    world.b.stall("r.restored")
    running = world.migrate("--mode", "static")
    wait_until(lambda: world.b.reached("r.restored"), "the copy")
    world.b.run("xl", "create", "-p", world.folder / "twin.json")  # has its name now
    world.b.release("r.restored")
    assert running.end().code != 0
    world.await_quiet()
    world.b.run("xl", "destroy", "g1")
    world.assert_intact(world.a)
    world.assert_settled()
    assert not world.b.disk("g1-0.img").exists() and len(aside(world.b)) == 1
    assert world.moved("--mode", "static").result["disks"][0]["bytes_wire"] < 2.5 * MIB
    world.assert_intact(world.b)
    assert aside(world.b) == []


@pytest.mark.slow
@pytest.mark.parametrize("point", ["s.received", "s.renamed", "s.cleared", "s.report"])
def test_a_host_that_restarts_does_not_start_its_guest_again(world: World, point: str) -> None:
    """Plain xl, which no shim guards, as early in the start of the host as can be: the disk is not there."""
    world.create()
    world.a.stall(point)
    running = world.migrate()
    wait_until(lambda: world.a.reached(point) and bool(aside(world.a)), point)
    for who in ("xl", "transport", "supervisor"):
        world.kill(who)
    world.a.release(point)
    running.process.wait(60)
    for domain in world.a.domains():
        world.a.run("xl", "destroy", str(domain["domid"]))
    words: list[str | Path] = [world.a.root / "bin" / "xl", "create", world.folder / "g1.json"]
    assert subprocess.run(words, env=world.a.env, capture_output=True, timeout=60).returncode != 0
    world.await_quiet()
    for host in (world.a, world.b, world.a):
        host.recover(code=None)
    if world.b.states():
        world.assert_intact(world.b)
        assert len(aside(world.a)) == 1
    else:  # what was in its memory went down with its host
        assert world.a.disk("g1-0.img").exists() and aside(world.a) == []
