"""CDs: an image that the far host has is left there, another is copied or ejected; none is missing in the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.migrate.test_claims import _AFTER, _DIES, CRASHES, held
from tests.end_to_end.migrate.test_plan import checks, planned
from tests.end_to_end.migrate.test_shared import stays
from tests.fakes.hosts import FakeHost
from tests.fakes.world import G1, MIB, World
from tests.helpers.program import Running, wait_until


def drive(image: Path | None, **values: Any) -> dict[str, Any]:
    """A CD drive as libxl's configuration has it."""
    inserted = {"format": "empty"} if image is None else {"format": "raw", "pdev_path": str(image)}
    return {"vdev": "hdc", "is_cdrom": 1, "removable": 1, **inserted, **values}


@pytest.fixture
def image(world: World) -> Path:
    """A CD image on host a, beside the disks."""
    path = world.a.disk("install.iso")
    path.write_bytes(os.urandom(3 * MIB // 2))
    return path


def drives(host: FakeHost) -> list[dict[str, Any]]:
    return [disk for disk in host.domains()[0]["config"]["disks"] if disk.get("is_cdrom")]


def same(world: World, image: Path) -> Path:
    """Host b has the image as well."""
    there = world.b.disk(image.name)
    there.write_bytes(image.read_bytes())
    return there


def arrived(world: World, running: Running) -> Any:
    done = running.end()
    assert done.code == 0, done.err
    world.assert_intact(world.b)
    world.assert_settled()
    return done


# -- copied ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["live", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("static", "full"))]
)
def test_an_image_that_the_far_host_lacks_moves_along(world: World, image: Path, mode: str) -> None:
    """It is there, whole, before the guest is suspended in any mode; the one here stays where it is."""
    world.create(more=[drive(image)])
    shown = checks(planned(world, "--json"), "pass")
    assert f"hdc: the CD image moves along: {image}" in shown["disk"], shown
    world.a.stall("s.suspended")
    running = world.migrate("--mode", mode)
    wait_until(lambda: world.a.reached("s.suspended") or running.process.poll() is not None, "the suspension")
    partial = world.b.disk(f".{image.name}.xenplugin-part")
    assert partial.stat().st_blocks * 512 >= image.stat().st_size
    world.a.release("s.suspended")
    done = arrived(world, running)
    assert world.b.disk(image.name).read_bytes() == image.read_bytes()
    assert [one["bytes_image"] for one in done.result["disks"]] == [4 * MIB, image.stat().st_size]
    assert stays(done) == [] and drives(world.b) == [drive(world.b.disk(image.name))]


def test_an_empty_drive_passes(world: World) -> None:
    world.create(more=[drive(None)])
    arrived(world, world.migrate())
    assert drives(world.b) == [drive(None)]


@pytest.mark.slow
def test_one_image_in_two_drives(world: World, image: Path) -> None:
    world.create(more=[drive(image), drive(image, vdev="hdd")])
    done = arrived(world, world.migrate())
    assert len(done.result["disks"]) == 2 and world.b.disk(image.name).read_bytes() == image.read_bytes()


@pytest.mark.slow
def test_an_image_that_is_not_there_any_more(world: World, image: Path) -> None:
    world.create(more=[drive(image)])
    image.unlink()
    done = world.migrate().end()
    assert done.code == 15 and "the CD in hdc cannot move" in done.error and "cd-eject" in done.hint, done.err
    by_hand = world.by_hand().end()
    assert by_hand.code != 0 and "the CD in hdc" in by_hand.err and "cd-eject" in by_hand.err, by_hand.err
    world.await_quiet()
    world.assert_intact(world.a)
    world.assert_settled()


# -- left ------------------------------------------------------------------------------------------


def test_an_image_that_the_far_host_has_is_left(world: World, image: Path) -> None:
    """Nothing of it is sent, and nothing there is changed, but it is not renamed either if the move fails."""
    there = same(world, image)
    before = os.stat(there)
    world.create(more=[drive(image)])
    assert f"hdc: hostb has the CD image {image}" in checks(planned(world, "--json"), "pass")["disk"]
    done = arrived(world, world.migrate())
    assert stays(done) == [("hdc", "left")] and len(done.result["disks"]) == 1
    assert drives(world.b) == [drive(there)]
    after = os.stat(there)
    assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (before.st_ino, before.st_mtime_ns, before.st_mode)
    assert stays(world.moved(there=world.a)) == [("hdc", "left")]


@pytest.mark.slow
def test_two_guests_with_one_image_move_at_the_same_time(world: World, image: Path) -> None:
    same(world, image)
    world.create(more=[drive(image)])
    world.create(name="g2", uuid=G1[:-1] + "2", more=[drive(image)])
    world.names = [("g1-0.img", True)]
    running = held(world, world.b, "r.read")
    second = world.migrate(guest="g2")
    wait_until(lambda: len(world.b.domains()) == 2 or second.process.poll() is not None, "the second")
    world.b.release("r.read")
    assert second.end().code == 0 and running.end().code == 0
    world.b.run("xl", "destroy", "g2")
    world.assert_intact(world.b)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [Path.unlink, lambda there: there.write_bytes(bytes(3 * MIB // 2))],
    ids=["removed", "written to"],
)
def test_a_left_image_that_changes_before_the_guest_may_run(
    world: World, image: Path, change: Callable[[Path], object]
) -> None:
    there = same(world, image)
    world.create(more=[drive(image)])
    running = held(world, world.a, "s.renamed")
    change(there)
    world.a.release("s.renamed")
    done = running.end()
    assert done.code == 15 and "g1 may not run here" in done.error and image.name in done.error, done.err
    world.await_quiet()
    world.assert_intact(world.a)
    world.assert_settled()


def lose_far_xl(world: World) -> None:
    """Move the guest, and kill the far xl just before it starts it. The guest is left here."""
    running = held(world, world.b, "r.restored")
    world.kill("far-xl")
    world.b.release("r.restored")
    assert running.end().code != 0
    world.await_quiet()
    for host in (world.a, world.b):
        host.recover(code=None)
    world.assert_intact(world.a)


@pytest.mark.slow
def test_a_move_that_fails_leaves_the_far_host_s_image_alone(world: World, image: Path) -> None:
    there = same(world, image)
    world.create(more=[drive(image)])
    lose_far_xl(world)
    world.assert_settled()
    assert there.read_bytes() == image.read_bytes()
    arrived(world, world.migrate())


# -- another file of that name -----------------------------------------------------------------------


def other(world: World, image: Path, size: int | None = None) -> Path:
    there = world.b.disk(image.name)
    there.write_bytes(os.urandom(size if size is not None else image.stat().st_size))
    return there


@pytest.mark.parametrize("size", [None, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, MIB))])
def test_another_file_is_never_replaced(world: World, image: Path, size: int | None) -> None:
    there = other(world, image, size)
    before = there.read_bytes()
    world.create(more=[drive(image)])
    found = checks(planned(world, "--json", code=15), "refuse")
    assert list(found) == ["target"] and "another file than the CD image" in found["target"], found
    done = world.migrate().end()
    assert done.code == 15 and "another file than the CD image" in done.error and "rename" in done.hint, done.err
    by_hand = world.by_hand().end()  # is not checked before: the far side of the move compares all of it
    assert by_hand.code != 0 and "another file than the CD image" in by_hand.err, by_hand.err
    world.await_quiet()
    world.assert_intact(world.a)
    world.assert_settled()
    assert there.read_bytes() == before


@pytest.mark.slow
def test_a_file_that_comes_meanwhile_is_never_replaced(world: World, image: Path) -> None:
    world.create(more=[drive(image)])
    world.b.patch(
        "from xenplugin.migrate.arriving_disks import StayingAnswers\n"
        "answer = StayingAnswers.answer\n"
        "def then_made(self, question):\n"
        "    found = answer(self, question)\n"
        f"    open({str(world.b.disk(image.name))!r}, 'w').write('mine')\n"
        "    return found\n"
        "StayingAnswers.answer = then_made\n"
    )
    done = world.migrate().end()
    assert done.code == 15 and "there by now, and is not replaced" in done.error, done.err
    world.b.patch("")
    world.await_quiet()
    world.assert_intact(world.a)
    world.assert_settled()
    assert world.b.disk(image.name).read_text() == "mine"


# -- ejected ---------------------------------------------------------------------------------------


def test_an_image_that_is_ejected(world: World, image: Path) -> None:
    """The far xl gets an empty drive; nothing of the image is sent."""
    world.a.configure(cds="eject")
    world.create(kind="hvm", more=[drive(image)])
    assert "hdc arrives empty: hostb does not have" in checks(planned(world, "--json"), "pass")["disk"]
    done = arrived(world, world.migrate())
    assert stays(done) == [("hdc", "ejected")] and len(done.result["disks"]) == 1
    assert drives(world.b) == [drive(None, pdev_path="")]
    assert not world.b.disk(image.name).exists() and image.exists()


@pytest.mark.slow
def test_an_ejection_that_fails_leaves_the_guest_its_cd(world: World, image: Path) -> None:
    world.a.configure(cds="eject")
    world.create(kind="hvm", more=[drive(image)])
    lose_far_xl(world)
    assert drives(world.a) == [drive(image)]
    node = f"/libxl/{world.a.domains()[0]['domid']}/device/vbd/51728/params"
    assert world.a.store.nodes[node] == os.fsencode(image)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["the same", "another", "lost"])
def test_what_is_ejected_depends_on_the_content(world: World, image: Path, what: str) -> None:
    """By the guest's policy; also where another file has the name, or the image is gone here."""
    world.create(kind="hvm", more=[drive(image)])
    world.a.store.put(f"/tool/xenplugin/policy/{G1}/cds", "eject")
    if what == "lost":
        image.unlink()
    else:
        (same if what == "the same" else other)(world, image)
    why = "left" if what == "the same" else "ejected"
    text = "hostb has" if why == "left" else "arrives empty"
    assert text in checks(planned(world, "--json"), "pass")["disk"]
    assert stays(arrived(world, world.migrate())) == [("hdc", why)]


@pytest.mark.slow
def test_a_pv_guest_s_cd_is_copied(world: World, image: Path) -> None:
    """libxl ejects no CD of a guest without a device model."""
    world.a.configure(cds="eject")
    world.create(more=[drive(image)])
    done = arrived(world, world.migrate())
    assert stays(done) == [] and world.b.disk(image.name).read_bytes() == image.read_bytes()


@pytest.mark.slow
def test_a_bad_setting(world: World) -> None:
    world.create()
    world.a.configure(cds="burn")
    done = world.migrate().end()
    assert done.code == 10 and 'cds = "burn"' in done.error and "copy or eject" in done.error, done.err


# -- crash points ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("crash", CRASHES)
def test_a_crash_while_an_image_is_copied(world: World, image: Path, crash: str) -> None:
    """The guest stays; what is left is settled, and the next migration succeeds."""
    world.create(disks=0, more=[drive(image)])
    world.b.patch(_DIES + _AFTER + CRASHES[crash])
    done = world.migrate().end(150)
    assert done.code == 14, f"exit {done.code}: {done.err}"
    world.b.patch("")
    world.await_quiet()
    for host in (world.a, world.b, world.a):
        host.recover()
    world.assert_intact(world.a)
    world.assert_settled()
    arrived(world, world.migrate())
    assert world.b.disk(image.name).read_bytes() == image.read_bytes()
    assert {path.name for path in (world.b.root / "disks").iterdir()} == {image.name}
