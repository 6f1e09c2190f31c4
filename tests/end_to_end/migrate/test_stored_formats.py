"""A guest's disk is stored as the far host says, and its configuration there has it so."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.fakexen import counter
from tests.end_to_end.migrate.test_config_file import configured, text
from tests.end_to_end.migrate.test_guest import stays
from tests.fakes.hosts import FakeHost
from tests.fakes.world import World


def raw_of(image: Path) -> bytes:
    """What a qcow2 holds."""
    raw = image.with_suffix(".raw")
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw], check=True, timeout=60)
    return raw.read_bytes()


def formats(host: FakeHost) -> list[tuple[str, str | None]]:
    return [(disk["format"], disk.get("backend")) for disk in host.domains()[0]["config"]["disks"]]


def test_a_raw_file_becomes_a_qcow2(world: World) -> None:
    configured(world)
    world.b.configure(formats={"raw": "qcow2"})
    world.moved("-p")  # the guest of the fakes would write to the bytes of the file
    assert formats(world.b) == [("qcow2", None)]
    there = (world.b.root / "xen/g1.cfg").read_text()
    assert there == text(world.b).replace("g1-0.img,raw,", "g1-0.img,qcow2,")
    data, now = raw_of(world.b.disk("g1-0.img")), world.truth()
    for slot in range(counter.SLOTS):
        at = counter.place(slot, len(data))
        wanted = counter.expected(slot, now)
        assert wanted is None or data[at : at + counter.PAGE] == wanted


@pytest.mark.slow
def test_the_far_disk_is_full(world: World, small_disk: Callable[[int], Path]) -> None:
    world.create()
    world.b.configure(formats={"raw": "qcow2"}, paths={str(world.a.root / "disks"): str(small_disk(1))})
    assert "free for" in stays(world, world.migrate(), 15).error
    assert "No space left" in stays(world, world.migrate("--force", "room"), 13).error


def test_the_checks_say_that_xl_knows_no_such_format(world: World) -> None:
    world.create()
    world.b.configure(formats={"raw": "vhdx"})
    done = world.a.start(world.a.root / "bin/xenplugin", "plan", "-s", world.ssh, "g1", "hostb").end()
    assert done.code == 15 and "xl does not know" in done.out
