"""Disks on storage that both hosts share: what is proved to be the same disk stays, what only seems so is refused.

The two fake hosts share a folder of this machine. They pass for two machines, because each has a boot id of its
own, and the folder for one on NFS, because they are told so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.migrate.test_plan import checks, planned
from tests.fakes.hosts import FakeHost
from tests.fakes.world import MIB, World
from tests.helpers.images import names_in

_MACHINE = """
from pathlib import Path
from xenplugin.image.safety import cluster_files, identity, shared_storage
identity._BOOT_ID = {boot!r}
families = {families!r}
shared_storage.family = lambda path: next((families[top] for top in families if path.startswith(top)), "")
from xenplugin.migrate import staying_disks
cluster_files.family = shared_storage.family
"""


def machine(host: FakeHost, families: dict[str, str] | None = None) -> None:
    """Have `host` pass for a machine of its own, on which files below these paths are on a cluster file system."""
    boot = host.root / "boot-id"
    boot.write_text(host.name)
    host.patch(_MACHINE.format(boot=str(boot), families=families or {}))


@pytest.fixture
def shared(world: World) -> Path:
    """A folder that both hosts mount under the same path."""
    folder = world.folder / "nfs"
    folder.mkdir()
    for host in (world.a, world.b):
        machine(host, {str(folder): "nfs"})
    return folder


def on(folder: Path, name: str = "shared.img", **values: Any) -> dict[str, Any]:
    """A disk in a file of the folder, as libxl's configuration has it."""
    path = folder / name
    path.write_bytes(os.urandom(MIB))
    return {"pdev_path": str(path), "vdev": "xvdm", "backend": "phy", "format": "raw", "readwrite": 1, **values}


def stays(done: Any) -> list[tuple[str, str]]:
    return [(one["device"], one["why"]) for one in done.result["staying"]]


# -- what stays ------------------------------------------------------------------------------------


def test_the_local_disk_moves_and_the_shared_one_stays(world: World, shared: Path) -> None:
    row = on(shared)
    world.create(more=[row])
    before = os.stat(row["pdev_path"])
    text = checks(planned(world, "--json"), "pass")
    assert text["disk"] == f"xvdm stays: both hosts share {row['pdev_path']}"
    done = world.moved()
    assert stays(done) == [("xvdm", "shared")] and len(done.result["disks"]) == 1
    assert any("both hosts share" in event["text"] for event in done.events if event["event"] == "notice")
    world.assert_intact(world.b)
    world.assert_settled()
    after = os.stat(row["pdev_path"])
    assert (before.st_ino, before.st_mtime_ns) != (0, 0) and before.st_ino == after.st_ino
    assert names_in(shared) == {"shared.img"}
    assert stays(world.moved(there=world.a)) == [("xvdm", "shared")]
    world.assert_intact(world.a)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["live", "static"])
def test_only_the_memory_moves(world: World, shared: Path, mode: str) -> None:
    world.create(disks=0, more=[on(shared)])
    done = world.moved("--mode", mode)
    assert stays(done) == [("xvdm", "shared")] and done.result["disks"] == []
    assert 0 < done.result["bytes_wire"] < done.result["bytes_memory"] + MIB
    world.assert_intact(world.b)
    world.assert_settled()


@pytest.mark.slow
def test_a_shared_disk_under_another_path(world: World, shared: Path) -> None:
    """hostb mounts the folder elsewhere, and its setting `paths` says so."""
    world.create(disks=0, more=[on(shared)])
    (world.b.root / "mnt").symlink_to(shared)
    world.b.configure(paths={**world.b.config["paths"], str(shared): str(world.b.root / "mnt")})
    world.moved()
    (domain,) = world.b.domains()
    assert domain["config"]["disks"][0]["pdev_path"] == str(world.b.root / "mnt" / "shared.img")
    world.assert_intact(world.b)


# -- what is only alike ----------------------------------------------------------------------------


def refused(world: World, *words: str) -> str:
    """The guest is refused for its disk, by the plan and by the move, and stays as it is. Returns the hint."""
    found = checks(planned(world, "--json", code=15), "refuse")
    assert set(found) == {"target"} and all(word in found["target"] for word in words), found
    done = world.migrate().end()
    assert done.code == 15 and all(word in done.error for word in words), done.err
    # An xl that was started by hand is not checked before: the far side of the move finds it.
    by_hand = world.by_hand().end()
    assert by_hand.code != 0 and all(word in by_hand.err for word in words), by_hand.err
    world.await_quiet()
    world.assert_intact(world.a)
    world.assert_settled()
    return done.hint or ""


@pytest.mark.slow
def test_a_folder_of_one_host_that_passes_for_the_same(world: World) -> None:
    """As if hostb were a clone of hosta, and a program kept the folders the same: all is equal but the kind of file
    system."""
    for host in (world.a, world.b):
        machine(host)
    folder = world.folder / "local"
    folder.mkdir()
    world.create(more=[on(folder)])
    assert "shared = [" in refused(world, "both hosts share it", "shared.img")


@pytest.mark.slow
def test_file_systems_of_two_families(world: World, shared: Path) -> None:
    world.create(disks=0, more=[on(shared)])
    machine(world.b, {str(shared): "ceph"})
    refused(world, "both hosts share it")


@pytest.mark.slow
def test_another_file_is_mounted_over_the_name(world: World, shared: Path) -> None:
    """The folder is the same one, and so is the name in it; what is there is not."""
    row = on(shared)
    world.create(disks=0, more=[row])
    own = world.b.root / "mnt"
    own.mkdir()
    (own / "shared.img").write_bytes(bytes(MIB))
    world.b.configure(paths={**world.b.config["paths"], str(shared): str(own)})
    world.b.patch(
        (world.b.root / "patch.py").read_text()
        + "_Mark = shared_storage._Mark\n_Mark.beside = lambda self, path: path.endswith(self.file)\n"
    )
    refused(world, "both hosts share it")


@pytest.mark.slow
def test_a_file_of_the_same_name_and_content_elsewhere_is_a_target(world: World, shared: Path) -> None:
    """hostb has a copy, on its own NFS: it is the base of the difference, and the disk moves."""
    row = on(shared)
    world.create(disks=0, more=[row])
    own = world.b.root / "nfs"
    own.mkdir()
    (own / "shared.img").write_bytes(Path(row["pdev_path"]).read_bytes())
    machine(world.b, {str(own): "nfs"})
    world.b.configure(paths={**world.b.config["paths"], str(shared): str(own)})
    done = world.moved()
    assert stays(done) == [] and len(done.result["disks"]) == 1
    world.assert_intact(world.b)


@pytest.mark.slow
def test_another_guest_of_the_far_host_has_it(world: World, shared: Path) -> None:
    row = on(shared)
    world.create(disks=0, more=[row])
    nodes = {"params": row["pdev_path"], "mode": "w"}
    for key, value in nodes.items():
        world.b.store.put(f"/local/domain/0/backend/vbd/9/51712/{key}", value)
    world.b.store.put("/local/domain/9/name", "other")
    refused(world, "attached to guest other")


@pytest.mark.parametrize(
    "mode", ["live", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("static", "full"))]
)
def test_both_hosts_are_one(world: World, mode: str) -> None:
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


# -- what the administrator says -------------------------------------------------------------------


def declared(world: World, *hosts: FakeHost, paths: list[str]) -> None:
    for host in hosts:
        host.configure(shared=paths)


@pytest.mark.slow
def test_a_declared_folder(world: World) -> None:
    """It cannot be recognised (sshfs): both administrators say that it is shared, and a marker shows that it is."""
    for host in (world.a, world.b):
        machine(host)
    folder = world.folder / "sshfs"
    folder.mkdir()
    world.create(more=[on(folder)])
    declared(world, world.a, paths=[str(folder)])
    assert "of this host as well" in refused(world, "declared as shared on the source, but not on this host")
    declared(world, world.b, paths=[str(folder)])
    done = world.moved()
    assert stays(done) == [("xvdm", "shared")]
    world.assert_intact(world.b)
    assert stays(world.moved(there=world.a)) == [("xvdm", "shared")]


@pytest.mark.slow
def test_a_declaration_that_is_wrong(world: World) -> None:
    """hostb has a folder of that name, with an old copy of the disk in it."""
    for host in (world.a, world.b):
        machine(host)
    folder, other = world.folder / "mine", world.folder / "theirs"
    folder.mkdir()
    other.mkdir()
    row = on(folder)
    world.create(more=[row])
    (other / "shared.img").write_bytes(Path(row["pdev_path"]).read_bytes())
    world.b.configure(paths={**world.b.config["paths"], str(folder): str(other)})
    declared(world, world.a, world.b, paths=[str(folder), str(other)])
    assert "take it out" in refused(world, "declared as shared, and is another disk", "beside")
    (other / "shared.img").unlink()
    refused(world, "declared as shared, and is not there")


@pytest.mark.slow
@pytest.mark.root
def test_devices_that_cannot_be_told_apart(world: World, loop_device: Callable[[Path], Path]) -> None:
    """Neither has a name that is the same on every host: asked for, and then moved or left."""
    for host in (world.a, world.b):
        machine(host)
        host.patch((host.root / "patch.py").read_text() + "identity._backing_file = lambda directory: ''\n")
    devices = []
    for number in "01":
        backing = world.folder / f"backing{number}"
        backing.write_bytes(bytes(MIB))
        devices.append(loop_device(backing))
    row = {"pdev_path": str(devices[0]), "vdev": "xvdm", "backend": "phy", "format": "raw", "readwrite": 1}
    world.create(more=[row])
    world.b.configure(paths={**world.b.config["paths"], str(devices[0]): str(devices[1])})
    hint = refused(world, "cannot find out whether both hosts share the device")
    assert str(devices[0]) in hint and hint.endswith("shared = []")
    declared(world, world.a, paths=[])
    done = world.moved()
    assert stays(done) == [] and len(done.result["disks"]) == 2
    world.assert_intact(world.b)


@pytest.mark.slow
def test_a_bad_declaration(world: World) -> None:
    world.create(disks=0)
    declared(world, world.a, paths=["vg0/g1"])
    done = world.migrate().end()
    assert done.code == 10 and "'vg0/g1' must be an absolute path" in done.error, done.err


# -- disks that a block script attaches --------------------------------------------------------------


ISCSI = {
    "pdev_path": "iqn=iqn.2001-05.com.example:g1,portal=192.0.2.9:3260,multipath=y",
    "vdev": "xvdi",
    "script": "block-iscsi",
    "format": "raw",
    "readwrite": 1,
}


def install(host: FakeHost, *programs: str) -> None:
    """Have `host` find no other programs for its scripts than these."""
    (host.root / "programs").mkdir(exist_ok=True)
    for program in programs:
        path = host.root / "programs" / program
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    host.patch(f"from xenplugin.migrate.checks import survey\nsurvey._PROGRAMS = {str(host.root / 'programs')!r}\n")


def test_what_a_block_script_attaches_stays(world: World) -> None:
    """The far host's xl runs the script; the checks ask for what it needs there."""
    world.create(more=[ISCSI])
    install(world.b)
    done = planned(world, "--json", code=15)
    found = [one for one in json.loads(done.out)["checks"] if one["verdict"] == "refuse"]
    assert [one["name"] for one in found] == ["files"] * 3
    assert "block-iscsi, without which" in found[0]["text"] and "iscsiadm" in found[1]["text"]
    assert "open-iscsi" in found[1]["hint"] and "multipath-tools" in found[2]["hint"]
    (
        world.a.root / "scripts" / "block-iscsi"
    ).touch()  # the path that it has on hosta, which is the same everywhere
    install(world.b, "iscsiadm", "multipath")
    assert checks(planned(world, "--json"), "pass")["disk"].startswith("xvdi stays: its block script attaches iqn=")
    done = world.moved()
    assert stays(done) == [("xvdi", "script")]
    (domain,) = world.b.domains()
    assert domain["config"]["disks"][1] == ISCSI  # as it was: `paths` is for paths
    world.assert_intact(world.b)
    world.assert_settled()


@pytest.mark.slow
def test_a_script_of_another_folder_is_not_run(world: World) -> None:
    """Not even for a source that does not care."""
    world.create(more=[ISCSI | {"script": "/srv/own/block-x"}])
    (world.a.root / "scripts" / "block-x").touch()
    done = world.migrate().end()
    assert done.code == 15 and "the script /srv/own/block-x attaches it" in done.err, done.err
    world.a.patch("from xenplugin.xen import guest\nguest._script_reason = lambda script: None\n")
    done = world.by_hand().end()
    assert done.code != 0 and "not one of Xen's" in done.err, done.err
    world.a.patch("")
    world.await_quiet()
    world.assert_intact(world.a)
