"""A guest's configuration file and its links move along: a restart of the host where it runs starts it, one of the
other host does not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import guest_files
from tests.fakes.hosts import FakeHost
from tests.fakes.world import G1, World
from tests.helpers.program import wait_until


def text(host: FakeHost, bridge: str = "xenbr0", uuid: str = G1) -> str:
    return guest_files.TEXT.format(disk=host.disk("g1-0.img"), uuid=uuid).replace("xenbr0", bridge)


def configured(world: World, name: str = "g1.cfg", link: str | None = "10-g1") -> Path:
    """The guest runs on host a, from the file that is returned."""
    path = world.a.root / "xen" / name
    path.write_text(text(world.a))
    path.chmod(0o640)
    if link:
        (world.a.root / "xen/auto" / link).symlink_to(f"../{name}")
    world.create(config=path)
    return path


def files(host: FakeHost) -> dict[str, str]:
    """What is in its /etc/xen."""
    return guest_files.files(host.root / "xen")


def restarted(host: FakeHost) -> list[str]:
    """The guests that a restart of the host starts, by what Debian's xendomains does. They stay paused: a real one
    would start anew, and the counter cannot."""
    for domain in host.domains():
        host.run("xl", "destroy", str(domain["domid"]))
    for entry in sorted((host.root / "xen/auto").glob("*")):
        words: list[str | Path] = [host.root / "bin/xl", "create", "--quiet", "--defconfig", entry, "-p"]
        subprocess.run(words, env=host.env, capture_output=True, timeout=60, check=False)
    return sorted(host.states())


def rows(host: FakeHost) -> list[dict[str, Any]]:
    found = json.loads(host.run("xenplugin", "status", "--json").out)
    return [row for row in found if row["kind"] == "aside" and row["storage"] == "config"]


def test_there_and_back(world: World) -> None:
    """On host b it has b's paths and bridges. What was changed there comes back; the file and the link are where
    they were, and as they were but for that."""
    path = configured(world)
    before = files(world.a)
    world.b.configure(bridges={"xenbr0": "br0"})
    (world.b.root / "net/xenbr0").rename(world.b.root / "net/br0")
    world.a.configure(bridges={"br0": "xenbr0"})
    world.moved()
    there = world.b.root / "xen/g1.cfg"
    wanted = text(world.b, "br0").replace("''", "'bridge=br0'")
    assert files(world.b) == {"g1.cfg": wanted, "auto/10-g1": f"-> {there}"}
    assert [nic["bridge"] for nic in world.b.domains()[0]["config"]["nics"]] == ["br0", "br0"]
    ((old, data),) = files(world.a).items()
    assert old.startswith("g1.cfg.left-for-hostb-20") and data == before["g1.cfg"]
    assert [(row["path"], row["aside"]) for row in rows(world.a)] == [(str(path), str(path.parent / old))]
    world.assert_intact(world.b)
    world.assert_settled()
    assert restarted(world.a) == []

    there.write_text(there.read_text().replace("this comment", "that comment"))
    world.moved(there=world.a)
    after = {name: found.replace("that comment", "this comment") for name, found in files(world.a).items()}
    assert after == {**before, "g1.cfg": before["g1.cfg"].replace("''", "'bridge=xenbr0'")}
    assert "that comment" in path.read_text() and path.stat().st_mode & 0o777 == 0o640
    assert rows(world.a) == [] and len(rows(world.b)) == 1
    (old,) = files(world.b)
    assert old.startswith("g1.cfg.left-for-hosta-")
    world.assert_intact(world.a)
    world.assert_settled()
    assert restarted(world.b) == []
    assert restarted(world.a) == ["g1"]


def test_the_old_file_comes_back_if_none_arrives(world: World) -> None:
    configured(world)
    before = files(world.a)
    world.moved()
    (world.b.root / "xen/g1.cfg").unlink()
    (world.b.root / "xen/auto/10-g1").unlink()
    done = world.moved(there=world.a)
    assert files(world.a) == before and rows(world.a) == [] and rows(world.b) == []
    assert "g1.cfg has its name again" in done.err and "no configuration file" in done.notices()


def test_left(world: World) -> None:
    """As the guest's policy says, which counts more than the setting."""
    configured(world)
    before = files(world.a)
    world.a.configure(config="copy")
    world.a.store.put(f"/tool/xenplugin/policy/{G1}/config", "leave")
    world.moved()
    assert files(world.a) == before and files(world.b) == {} and rows(world.a) == []
    assert restarted(world.a) == []  # its disk is not there


@pytest.mark.slow
def test_copied(world: World) -> None:
    configured(world)
    before = files(world.a)
    world.a.configure(config="copy")
    world.moved()
    assert files(world.a) == before and set(files(world.b)) == {"g1.cfg", "auto/10-g1"}
    assert restarted(world.b) == ["g1"]


@pytest.mark.slow
def test_a_file_in_auto_itself(world: World) -> None:
    """Each file there is started, whatever its name, so it must not lie aside there."""
    config = world.a.root / "xen/auto/g1.cfg"
    config.write_text(text(world.a))
    world.create(config=config)
    world.moved()
    assert set(files(world.b)) == {"g1.cfg", "auto/g1.cfg"}
    (old,) = files(world.a)
    assert old.startswith("g1.cfg.left-for-")
    world.moved(there=world.a)
    assert set(files(world.a)) == {"auto/g1.cfg"} and rows(world.a) == []


@pytest.mark.slow
def test_a_file_elsewhere_to_which_a_link_leads(world: World) -> None:
    """It goes into /etc/xen, and back to where it was."""
    path = world.a.root / "srv" / "g1.cfg"
    path.parent.mkdir()
    path.write_text(text(world.a))
    (world.a.root / "xen/auto/g1").symlink_to(path)
    world.create(config=path)
    world.moved()
    assert set(files(world.b)) == {"g1.cfg", "auto/g1"} and restartable(world.b)
    assert not path.exists() and files(world.a) == {}
    assert [old.name.partition(".left")[0] for old in path.parent.iterdir()] == ["g1.cfg"]
    world.moved(there=world.a)
    assert files(world.a) == {"auto/g1": f"-> {path}"} and path.read_text() == text(world.a)
    assert list(path.parent.iterdir()) == [path]


def restartable(host: FakeHost) -> bool:
    """Whether each entry of auto leads to a file."""
    return all(entry.exists() for entry in (host.root / "xen/auto").iterdir())


@pytest.mark.slow
def test_something_takes_the_name_while_it_moves(world: World) -> None:
    configured(world)
    world.b.stall("r.cleared")
    running = world.migrate()
    wait_until(lambda: world.b.reached("r.cleared"), "the last step")
    (world.b.root / "xen/g1.cfg").write_text("mine")
    world.b.release("r.cleared")
    done = running.end()
    assert done.code == 0 and "belongs to something else by now" in done.err
    found = files(world.b)
    assert found.pop("g1.cfg") == "mine" and "auto/10-g1" not in found
    assert [(name[:12], data) for name, data in found.items()] == [("g1.cfg.from-", text(world.b))]


@pytest.mark.slow
def test_a_configuration_that_xl_is_given(world: World) -> None:
    """It stays, unless it is the guest's own."""
    path = configured(world)
    given = world.folder / "other.cfg"
    given.write_text(path.read_text())
    done = world.moved("-C", str(given))
    assert f"{given} (-C) does not move along" in done.notices() and given.exists()
    assert set(files(world.b)) == {"g1.cfg", "auto/10-g1"}
    done = world.moved("-C", str(world.b.root / "xen/g1.cfg"), there=world.a)
    assert "(-C)" not in done.notices() and path.exists()


def test_what_the_old_host_says(world: World) -> None:
    path = configured(world)
    world.a.run("xenplugin", "enable")
    world.moved()
    done = world.a.start(world.a.root / "sbin" / "xl", "create", path).end()
    assert (
        done.code == 1 and "g1 left for hostb" in done.error and "its configuration file lies aside" in done.error
    )
    assert "old config" in world.a.run("xenplugin", "status").out
    said = json.loads(world.a.run("xenplugin", "clean", "--yes", "--json").out)
    assert str(path) in [one["path"] for one in said["removed"]] and files(world.a) == {}


@pytest.mark.slow
def test_a_file_that_is_changed_while_it_moves(world: World) -> None:
    path = configured(world)
    world.b.stall("r.cleared")
    running = world.migrate()
    wait_until(lambda: world.b.reached("r.cleared"), "the last step")
    new = path.with_suffix(".new")
    new.write_text(text(world.a) + "# changed\n")
    new.rename(path)
    world.b.release("r.cleared")
    done = running.end()
    assert done.code == 0 and "was changed while g1 moved" in done.notices()
    assert list(files(world.a).values()) == [text(world.a) + "# changed\n"]


# -- moves that fail, and crashes ------------------------------------------------------------------

#: Kills the program at the call number `times` of a function, before or after it has done its work.
_KILL = """
import os, signal
from {package} import {module} as module
left, work = [{times}], module.{name}
def die():
    open({killed!r}, "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
def dying(*words, **more):
    left[0] -= 1
    if left[0] == 0 and not {after}:
        die()
    result = work(*words, **more)
    if left[0] == 0:
        die()
    return result
module.{name} = dying
"""


FAILING = [("r.config", "transport"), ("r.restored", "receive-domain"), ("s.stream", "far-xl")]
MORE = [(point, who) for point in ("r.config", "r.read", "s.stream", "r.restored")
        for who in ("transport", "receive-domain", "far-xl") if (point, who) not in FAILING]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "who"), [*FAILING, *(pytest.param(*pair, marks=pytest.mark.matrix) for pair in MORE)]
)
def test_a_move_that_fails(world: World, point: str, who: str) -> None:
    """Nothing has changed on host a, and nothing is left on host b."""
    configured(world)
    before = files(world.a)
    host = world.b if point.startswith("r.") else world.a
    host.stall(point)
    running = world.migrate()
    wait_until(lambda: host.reached(point), point)
    assert files(world.a) == before
    assert [name[:18] for name in files(world.b)] in ([".g1.cfg.xenplugin-"], [])
    world.kill(who)
    host.release(point)
    assert running.end().code != 0
    world.await_quiet()
    for each in (world.a, world.b, world.a):
        each.recover(code=None)
    world.assert_intact(world.a)
    world.assert_settled()
    assert files(world.a) == before and files(world.b) == {} and rows(world.a) == rows(world.b) == []


STEPS = [
    ("a", "xenplugin.migrate.guest_config", "leaving_config", "put_aside", False),
    ("a", "xenplugin.image.old", "moving", "rename_file", True),
    ("b", "xenplugin.migrate.guest_config", "arriving_config", "finish", False),
    ("b", "xenplugin.image.old", "config_file", "make_links", True),
]
MORE_STEPS = [
    ("a", "xenplugin.image.old", "moving", "rename_file", False),
    ("a", "xenplugin.image.old", "config_file", "remove", True),
    ("a", "xenplugin.migrate.guest_config", "leaving_config", "put_aside", True),
    ("b", "xenplugin.migrate.guest_config", "arriving_config", "rename_new", True),
    ("b", "xenplugin.migrate.guest_config", "arriving_config", "finish", True),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "package", "module", "name", "after"),
    [*STEPS, *(pytest.param(*step, marks=pytest.mark.matrix) for step in MORE_STEPS)],
)
def test_killed_when_the_guest_has_left(
    world: World, side: str, package: str, module: str, name: str, after: bool
) -> None:
    """It runs on host b. `recover` does the rest on each host."""
    configured(world)
    host = world.a if side == "a" else world.b
    # rename_file also takes the disk's name away, before.
    times = 2 if name == "rename_file" else 1
    killed = world.folder / "killed"
    host.patch(
        _KILL.format(package=package, module=module, name=name, after=after, times=times, killed=str(killed))
    )
    world.migrate().process.wait(100)
    host.patch("")
    assert killed.exists()
    world.await_quiet()
    for each in (world.a, world.b, world.a):
        each.recover(code=None)
    world.assert_intact(world.b)
    world.assert_settled()
    assert files(world.b) == {"g1.cfg": text(world.b), "auto/10-g1": f"-> {world.b.root}/xen/g1.cfg"}
    assert [name.partition(".left-for")[0] for name in files(world.a)] == ["g1.cfg"]
    assert len(rows(world.a)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        "s.renamed",
        "s.report",
        *(pytest.param(name, marks=pytest.mark.matrix) for name in ("s.received", "s.cleared")),
    ],
)
def test_a_host_that_restarts_while_its_guest_leaves(world: World, point: str) -> None:
    """At no point does it start the guest again."""
    configured(world)
    world.a.stall(point)
    running = world.migrate()
    wait_until(lambda: world.a.reached(point), point)
    wait_until(lambda: not world.a.disk("g1-0.img").exists(), "the old disk aside")
    for who in ("xl", "transport", "supervisor"):
        world.kill(who)
    world.a.release(point)
    running.process.wait(60)
    assert restarted(world.a) == []
    world.await_quiet()
    for host in (world.a, world.b, world.a):
        host.recover(code=None)
    where, other = (world.b, world.a) if world.b.states() else (world.a, world.b)
    assert set(files(where)) == {"g1.cfg", "auto/10-g1"}
    assert not any((other.root / "xen/auto").iterdir())
