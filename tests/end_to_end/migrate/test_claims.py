"""The disks of a guest that is on its way belong to it, from the first byte until it runs on them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.hosts import FakeHost
from tests.fakes.world import G1, MIB, World
from tests.helpers.program import Done, Running, wait_until


def held(world: World, host: FakeHost, point: str, *options: str) -> Running:
    """A migration that is held at `point` on `host`."""
    host.stall(point)
    running = world.migrate(*options)
    wait_until(lambda: host.reached(point) or running.process.poll() is not None, point)
    assert host.reached(point), running.end().err
    return running


def other_image(host: FakeHost) -> Path:
    path = host.root / "other.img"
    path.write_bytes(os.urandom(4 * MIB))
    return path


def copied(world: World, target: Path) -> Done:
    """`xenplugin copy` of a foreign image on host b."""
    return world.b.run("xenplugin", "copy", other_image(world.b), target, code=None)


def refused(done: Done, *texts: str) -> None:
    """It is refused by the guest's claim; error and hint have the `texts`."""
    assert done.code == 15, f"exit {done.code}: {done.err}"
    assert "is a disk of g1" in done.error, done.err
    assert all(text in done.error + done.hint for text in texts), done.err


def arrived(world: World, running: Running) -> None:
    done = running.end()
    assert done.code == 0, done.err
    world.assert_intact(world.b)
    world.assert_settled()


# -- nothing else writes to a guest's disk, or reads it --------------------------------------------


def test_a_copy_onto_the_guest_s_disk_while_its_gate_is_open(world: World) -> None:
    """The far xl has read the whole stream, and attaches the disk now."""
    world.create()
    running = held(world, world.b, "r.read")
    (record,) = (world.b.root / "state" / "migrations").glob("*.destination.json")
    disk = world.b.disk("g1-0.img")
    refused(
        copied(world, disk),
        str(disk),
        f"from {socket.gethostname()}",
        record.name.partition(".")[0],
        "wait",
        "xenplugin status",
    )
    world.b.release("r.read")
    arrived(world, running)
    assert "attached to guest g1" in copied(world, disk).error


def test_a_copy_onto_the_first_disk_while_the_second_still_moves(world: World) -> None:
    world.create(disks=2)
    running = held(world, world.a, "s.memory0")
    (second,) = [pid for pid in world.pids("receive-disk") if writes_to(pid, "g1-1.img")]
    os.kill(second, signal.SIGSTOP)
    world.a.release("s.memory0")
    partial = world.b.disk(".g1-0.img.xenplugin-part")
    wait_until(lambda: not partial.exists() and world.b.disk("g1-0.img").stat().st_size > 0, "the first disk")
    refused(copied(world, world.b.disk("g1-0.img")), "moving here", "wait")
    os.kill(second, signal.SIGCONT)
    arrived(world, running)


def writes_to(pid: int, name: str) -> bool:
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return any(link.endswith(f"/.{name}.xenplugin-part") for link in links)


@pytest.mark.slow
def test_every_verb_and_every_name_of_the_disk(world: World) -> None:
    world.create()
    running = held(world, world.b, "r.read")
    disk, other = world.b.disk("g1-0.img"), other_image(world.b)
    links = world.b.root / "links"
    links.mkdir()
    (links / "soft.img").symlink_to(disk)
    os.link(disk, links / "hard.img")
    (world.b.root / "folder").symlink_to(disk.parent)
    for name in (disk, links / "soft.img", links / "hard.img", world.b.root / "folder" / disk.name):
        refused(world.b.run("xenplugin", "copy", other, name, code=None), str(name))
    for words in (("copy", disk, links / "new.img"), ("seal", "--key-file", links / "key", disk, links / "sealed")):
        refused(world.b.run("xenplugin", *words, code=None), str(disk))
    world.b.run("xenplugin", "seal", "--key-file", links / "key", other, links / "sealed")
    words = ("open", "--key-file", links / "key", links / "sealed", disk)
    refused(world.b.run("xenplugin", *words, code=None), str(disk))
    shutil.rmtree(links)
    world.b.release("r.read")
    arrived(world, running)


@pytest.mark.slow
def test_another_guest_that_would_have_the_disk(world: World) -> None:
    world.create()
    world.create(name="g2", uuid=G1[:-1] + "2")
    world.names = [("g1-0.img", True)]
    running = held(world, world.b, "r.read")
    there, here = world.b.config["paths"].copy().popitem()
    disk = world.b.disk("g1-0.img")
    world.b.configure(paths={there: here, f"{there}/g2-0.img": str(disk)})
    refused(world.migrate(guest="g2").end(), str(disk), "moving here")
    world.await_writes(G1[:-1] + "2")
    world.a.run("xl", "destroy", "g2")
    world.b.release("r.read")
    arrived(world, running)


@pytest.mark.slow
@pytest.mark.root
def test_a_block_device(world: World, loop_device: Callable[[Path], Path]) -> None:
    """The kernel's own claim on it ends with the commit."""
    world.create()
    backing = world.b.root / "backing"
    backing.write_bytes(bytes(4 * MIB))
    device = loop_device(backing)
    world.b.disk("g1-0.img").symlink_to(device)
    running = held(world, world.b, "r.read")
    refused(copied(world, device), str(device), "moving here")
    world.b.release("r.read")
    arrived(world, running)
    assert "attached to guest g1" in copied(world, device).error


@pytest.mark.root
def test_a_larger_block_device(world: World, loop_device: Callable[[Path], Path]) -> None:
    """The far host's setting decides, and the guest runs on it: what was committed is the whole device."""
    world.create(disks=2, read_only=1)
    backing = world.b.root / "backing"
    backing.write_bytes(b"r" * 5 * MIB)
    world.b.disk("g1-1.img").symlink_to(loop_device(backing))
    world.a.configure(larger_device="keep")
    done = world.migrate().end()
    assert done.code == 15 and "larger_device in xenplugin.conf" in done.hint, done.err
    world.assert_intact(world.a)
    world.b.configure(larger_device="keep")
    name, _ = world.names.pop()  # which has no longer the size that the others are compared with
    arrived(world, world.migrate())
    assert backing.read_bytes() == world.bases[name] + b"r" * MIB


@pytest.mark.slow
@pytest.mark.parametrize(("point", "where"), [("r.cleared", "b"), ("s.received", "a")])
def test_the_claim_outlives_its_processes(world: World, point: str, where: str) -> None:
    """What was killed may have let the guest run: until recover has settled it, its disks are nobody else's."""
    world.create()
    running = held(world, world.a if where == "a" else world.b, point)
    for pid in world.processes():
        os.kill(pid, signal.SIGKILL)
    running.process.wait(20)
    world.await_quiet()
    refused(copied(world, world.b.disk("g1-0.img")), "was interrupted", "xenplugin recover")
    for host in (world.b, world.a, world.b):
        host.recover(code=None)
    if where == "b":
        world.assert_intact(world.b)
        assert "attached to guest g1" in copied(world, world.b.disk("g1-0.img")).error
    else:
        world.assert_intact(world.a)
        assert copied(world, world.b.disk("g1-0.img")).code == 0
    world.assert_settled()


@pytest.mark.slow
def test_a_copy_that_runs_already_keeps_its_target(world: World) -> None:
    world.create()
    target = world.b.disk("g1-0.img")
    other = other_image(world.b)
    copy = world.b.start(world.b.root / "bin" / "xenplugin", "copy", "--rate", "8mbit", other, target)
    wait_until(lambda: world.b.disk(".g1-0.img.xenplugin-part").exists(), "the copy")
    done = world.migrate().end()
    assert done.code == 15 and "another copy" in done.error, done.err
    assert copy.end().code == 0 and target.read_bytes() == other.read_bytes()
    world.await_quiet()
    world.assert_intact(world.a)
    world.assert_settled()
    arrived(world, world.migrate())


@pytest.mark.slow
def test_the_record_cannot_be_read(world: World) -> None:
    folder = world.b.root / "state" / "migrations"
    folder.mkdir()
    (folder / f"{'0' * 32}.destination.json").write_text("{}")
    done = copied(world, world.b.disk("new.img"))
    assert done.code == 15 and str(folder) in done.error and "xl list" in done.hint
    (folder / f"{'0' * 32}.destination.json").rename(folder / f"{'0' * 32}.source.json")
    assert copied(world, world.b.disk("new.img")).code == 0


# -- before the guest may run: its disks are what was committed --------------------------------------


def kept(world: World, running: Running, *texts: str) -> None:
    """The far xl never gets its permission: the guest goes on where it was, at once."""
    world.a.release("s.renamed")
    done = running.end()
    assert done.code == 15 and done.hint, f"exit {done.code}: {done.err}"
    assert all(text in done.error for text in ("g1 may not run here", "g1-0.img", *texts)), done.err
    world.await_quiet()
    world.assert_intact(world.a)
    world.assert_settled()


def test_another_file_has_taken_the_disk_s_place(world: World) -> None:
    world.create()
    running = held(world, world.a, "s.renamed")
    os.replace(other_image(world.b), world.b.disk("g1-0.img"))
    kept(world, running, "another file")


@pytest.mark.slow
def test_a_program_has_written_to_the_disk(world: World) -> None:
    world.create()
    running = held(world, world.a, "s.renamed")
    with world.b.disk("g1-0.img").open("r+b") as file:
        file.write(b"x")
    kept(world, running, "it was written to")
    arrived(world, world.migrate())


@pytest.mark.slow
def test_a_disk_was_cut_off_or_is_gone(world: World) -> None:
    world.create()
    running = held(world, world.a, "s.renamed")
    os.truncate(world.b.disk("g1-0.img"), MIB)
    kept(world, running, f"{MIB} bytes instead of {4 * MIB}")
    running = held(world, world.a, "s.renamed")
    world.b.disk("g1-0.img").unlink()
    kept(world, running, "No such file")


@pytest.mark.slow
def test_a_configuration_with_a_disk_that_has_not_moved(world: World) -> None:
    """From a source that does not compare it with xenstore."""
    world.create(disks=2)
    world.a.patch(
        "from xenplugin.xen import guest\ncheck = guest.check\n"
        "guest.check = lambda *words: guest.GuestDisks(check(*words).images[:1])\n"
    )
    world.b.disk("g1-1.img").write_bytes(bytes(4 * MIB))
    done = world.migrate().end()
    assert done.code == 11 and "g1-1.img, which has not moved" in done.error, done.err
    world.a.patch("")
    world.await_quiet()
    world.assert_intact(world.a)
    world.assert_settled()


# -- two parsers of one text -------------------------------------------------------------------------


@pytest.mark.parametrize("lenient", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["here", "there"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("disks", [{"pdev_path": "/etc/passwd", "vdev": "xvda", "format": "raw", "readwrite": 1}]),
        ("uuid", G1[:-1] + "9"),
    ],
)
def test_a_key_of_the_configuration_twice(world: World, key: str, value: Any, lenient: bool) -> None:
    """libxl takes the first, Python the last. Refused by the source, and, if that takes it, by the destination."""
    world.create()
    world.a.knob(twice={key: value})
    if lenient:
        world.a.patch("import json\nfrom xenplugin.migrate import strict_json\nstrict_json.parse = json.loads\n")
    done = world.migrate().end()
    assert done.code == 11 and f"the key '{key}' twice" in done.error, done.err
    world.a.patch("")
    world.a.knob()
    world.await_quiet()
    world.assert_intact(world.a)
    world.assert_settled()


# -- crash points ------------------------------------------------------------------------------------

#: Where a process of the far side dies: the name of a step, then the code that kills it there.
_DIES = "import os, signal\ndie = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
_AFTER = "def then_die(step):\n    def call(*words):\n        step(*words)\n        die()\n    return call\n"
CRASHES = {
    "before the empty file gets its name": "from xenplugin.image.target import placeholder\n"
    "placeholder.rename_new = die\n",
    "after the empty file has got its name": "from xenplugin.image.target import placeholder\n"
    "placeholder.rename_new = then_die(placeholder.rename_new)\n",
    "before the disk is renamed": "from xenplugin.image.target import file\nfile.kept_closed = die\n",
    "after the rename, before `committed`": "from xenplugin.migrate.ownership.claims import Claims\n"
    "Claims.committed = die\n",
    "while `committed` is written": "from xenplugin.image import reserved_file\n"
    "from xenplugin.migrate.ownership import claims\n"
    "committed = claims.Claims.committed\n"
    "def dies_within(*words):\n    reserved_file.exchange = die\n    committed(*words)\n"
    "claims.Claims.committed = dies_within\n",
    "after `committed`, before the receipt": "from xenplugin.migrate.ownership.claims import Claims\n"
    "Claims.committed = then_die(Claims.committed)\n",
    "before the disks are noted": "from xenplugin.migrate.destination import DestinationMigration as D\n"
    "D._note_disks = die\n",
    "after the disks are noted": "from xenplugin.migrate.destination import DestinationMigration as D\n"
    "D._note_disks = then_die(D._note_disks)\n",
    "before the disks are compared": "from xenplugin.migrate.ownership import claims\nclaims.compare = die\n",
    "after the disks are compared": "from xenplugin.migrate.ownership import claims\n"
    "claims.compare = then_die(claims.compare)\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("first", "ab")
@pytest.mark.parametrize("crash", CRASHES)
def test_a_crash_while_a_disk_is_noted_committed_or_compared(world: World, crash: str, first: str) -> None:
    """The guest stays; what is left is settled, and the next migration succeeds."""
    world.create(disks=2)
    world.b.patch(_DIES + _AFTER + CRASHES[crash])
    done = world.migrate().end(150)
    assert done.code == 14, f"exit {done.code}: {done.err}"
    world.b.patch("")
    world.await_quiet()
    for host in (world.a, world.b, world.a) if first == "a" else (world.b, world.a, world.b):
        host.recover()
    world.assert_intact(world.a)
    world.assert_settled()
    arrived(world, world.migrate())
    assert {path.name for path in (world.b.root / "disks").iterdir()} == {"g1-0.img", "g1-1.img"}
