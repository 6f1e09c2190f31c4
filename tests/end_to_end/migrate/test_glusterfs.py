"""A real cluster file system: two mounts of GlusterFS, one for each fake host, with nothing told to either."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.migrate.test_plan import checks, planned
from tests.end_to_end.migrate.test_shared import on, stays
from tests.fakes.world import MIB, World
from tests.helpers.program import wait_until
from tests.helpers.proxy import free_ports
from xenplugin.image.safety.cluster_files import family

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.skipif(
        not all(map(shutil.which, ("glusterfs", "glusterfsd"))), reason="needs GlusterFS (glusterfs-client)"
    ),
]

_SERVER = """
volume files
  type storage/posix
  option directory {folder}
end-volume
volume locks
  type features/locks
  subvolumes files
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address 127.0.0.1
  option transport.socket.listen-port {port}
  option auth.addr.locks.allow 127.0.0.1
  subvolumes locks
end-volume
"""
_CLIENT = """
volume client
  type protocol/client
  option transport-type tcp
  option remote-host 127.0.0.1
  option remote-port {port}
  option remote-subvolume locks
end-volume
"""


@pytest.fixture
def mounts(world: World) -> Iterator[list[Path]]:
    """The same volume, as each host has it: with a device number of its own."""
    port = free_ports(1).start
    folder = world.folder / "brick"
    folder.mkdir()
    started = []

    def start(program: str, name: str, text: str, *words: str | Path) -> None:
        (world.folder / f"{name}.vol").write_text(text.format(port=port, folder=folder))
        files = ("-f", world.folder / f"{name}.vol", "-l", world.folder / f"{name}.log")
        started.append(subprocess.Popen([program, "--no-daemon", *files, *words]))

    where = [host.root / "gluster" for host in (world.a, world.b)]
    try:
        start("glusterfsd", "server", _SERVER)
        for number, place in enumerate(where):
            place.mkdir()
            start("glusterfs", f"client{number}", _CLIENT, place)
            wait_until(lambda place=place: os.path.ismount(place), f"GlusterFS on {place}")  # type: ignore[misc]
        yield where
    finally:
        for place in where:
            subprocess.run(["umount", place], check=False, capture_output=True)
        for process in reversed(started):
            process.terminate()
            process.wait(20)


def test_a_shared_disk_stays(world: World, mounts: list[Path]) -> None:
    ours, theirs = mounts
    assert family(str(ours)) == "glusterfs" and os.stat(ours).st_dev != os.stat(theirs).st_dev
    row = on(ours)
    world.create(more=[row])
    world.b.configure(paths={**world.b.config["paths"], str(ours): str(theirs)})
    world.a.configure(paths={**world.a.config["paths"], str(theirs): str(ours)})
    assert checks(planned(world, "--json"), "pass")["disk"].startswith("xvdm stays: both hosts share")
    done = world.moved()
    assert stays(done) == [("xvdm", "shared")] and len(done.result["disks"]) == 1
    world.assert_intact(world.b)
    assert stays(world.moved(there=world.a)) == [("xvdm", "shared")]
    world.assert_intact(world.a)
    assert {path.name for path in ours.iterdir()} == {"shared.img"}


def test_another_file_of_the_volume_is_a_target(world: World, mounts: list[Path]) -> None:
    """A copy that lies in another folder of the same volume: the disk moves there."""
    ours, theirs = mounts
    row = on(ours)
    (theirs / "copies").mkdir()
    (theirs / "copies" / "shared.img").write_bytes(bytes(MIB))
    world.create(disks=0, more=[row])
    world.b.configure(paths={**world.b.config["paths"], str(ours): str(theirs / "copies")})
    done = world.moved()
    assert stays(done) == [] and len(done.result["disks"]) == 1
    world.assert_intact(world.b)
