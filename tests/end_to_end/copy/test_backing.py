"""Backing files: a chain arrives as one image, or, if the far host has the same backing file, only what differs."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.helpers.images import MIB
from tests.helpers.overlays import assert_same, backing_of, overlay, qemu_io
from tests.helpers.program import wait_until


@pytest.fixture
def top(tmp_path: Path) -> Path:
    return overlay(tmp_path / "here")


@pytest.fixture
def base(sides: Sides, top: Path) -> Path:
    """The far host's backing file."""
    sides.far["backing_folders"] = [str(sides.there)]
    return Path(shutil.copyfile(top.parent / "base.img", sides.there / "base.img"))


def test_only_what_differs_moves_if_the_far_host_has_the_backing_file(sides: Sides, top: Path, base: Path) -> None:
    before = base.read_bytes()
    (planned,) = sides.copy(top, "--backing", "keep", "-N").result["estimate"]["disks"]
    assert planned["bytes_to_send"]["middle"] == 2 * 65536
    done = sides.copy(top, "--backing", "keep")
    assert backing_of(sides.target) == (str(base), "raw")
    assert_same(top, sides.target)
    assert done.result["bytes_wire"] < 100_000 and sides.target.stat().st_blocks * 512 < MIB
    # The overlay that is there is the base of the next difference; what it shares with its own base stays there.
    qemu_io(top, *(f"write -s {base} {at}M 1M" for at in (10, 11)))
    assert sides.copy(top, "--backing", "keep").result["bytes_wire"] < 3 * MIB
    qemu_io(top, "write -P 5 0 64k")
    done = sides.copy(top, "--backing", "keep")
    assert done.result["bytes_wire"] < 50_000 and sides.target.stat().st_blocks * 512 < 4 * MIB
    assert backing_of(sides.target) == (str(base), "raw") and base.read_bytes() == before
    assert_same(top, sides.target)
    assert sides.left() == {"base.img"}


def test_otherwise_it_is_flattened_and_the_reason_said(sides: Sides, top: Path, base: Path) -> None:
    sides.copy(top)
    assert backing_of(sides.target) == (None, None)
    assert_same(top, sides.target)
    base.write_bytes(bytes(base.stat().st_size))
    done = sides.copy(top, "--backing", "keep")
    assert backing_of(sides.target) == (None, None)
    notices = [json.loads(line).get("text", "") for line in done.err.splitlines() if line.startswith("{")]
    assert any("without its backing file" in notice for notice in notices)


def test_a_broken_copy_goes_on(sides: Sides, top: Path, base: Path) -> None:
    qemu_io(top, *(f"write -s {base} {at}M 1M" for at in (1, 2, 10, 11)))
    running = sides.start(top, "--backing", "keep", "--rate", "8mbit", "--level", "store", "--streams", "2")
    journal = sides.there / f".{sides.target.name}.xenplugin-journal"
    wait_until(lambda: journal.exists() and b'"durable"' in journal.read_bytes(), "something is durable")
    running.signal(signal.SIGKILL)
    assert running.end().code == -signal.SIGKILL
    sides.program.await_none()
    done = sides.copy(top, "--backing", "keep")
    assert done.result["resumed"] > 0 and backing_of(sides.target) == (str(base), "raw")
    assert_same(top, sides.target)


def test_the_destination_of_a_pull_decides(sides: Sides, top: Path, base: Path) -> None:
    """The far host cannot have the image based on a file of this one."""
    sides.far["backing"], sides.near["backing_folders"] = "keep", [str(sides.there)]
    words = sides.words(top)
    words[-2:] = [f"far:{top}", sides.target]
    for option, kept in (([], (None, None)), (["--backing", "keep"], (str(base), "raw"))):
        sides.program.run(*words[:1], *option, *words[1:])
        assert backing_of(sides.target) == kept
        assert_same(top, sides.target)
