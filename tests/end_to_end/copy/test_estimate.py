"""`copy -N` asks the far side what it has, and leaves no trace there."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Sides
from tests.helpers.images import MIB, content, dense_image, make_image, names_in
from tests.helpers.program import wait_until


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path / "source.img")


RANGE = {"low", "middle", "high"}


def plan(sides: Sides, image: Path, *options: str) -> dict[str, Any]:
    done = sides.copy(image, "-N", *options)
    assert {key: done.result[key] for key in ("schema", "outcome")} == {"schema": 1, "outcome": "planned"}
    found: dict[str, Any] = done.result["estimate"]
    assert found == done.event("estimated")["estimate"]
    return found


def exactly(count: int) -> dict[str, float]:
    return {"low": count, "middle": count, "high": count}


def test_it_says_what_it_promises(sides: Sides, tmp_path: Path) -> None:
    found = plan(sides, dense_image(tmp_path / "dense.img", 6))
    assert {key for key, value in found.items() if isinstance(value, dict)} == {
        "seconds", "phases_seconds", "bytes_wire", "rate_bytes_per_second",
    }  # fmt: skip
    for key in ("seconds", "bytes_wire", "rate_bytes_per_second"):
        assert set(found[key]) == RANGE and 0 < found[key]["low"] <= found[key]["middle"] <= found[key]["high"]
    assert set(found["phases_seconds"]) == {"connect", "transfer", "finish"}
    assert found["downtime_seconds"] is None and found["bytes_memory"] == 0 and found["streams"] >= 1
    assert found["bytes_compared"] == 6 * MIB
    (disk,) = found["disks"]
    assert disk == {
        "name": "dense.img", "bytes_image": 6 * MIB, "bytes_to_send": exactly(6 * MIB), "bytes_known": exactly(0),
    }  # fmt: skip
    assert found["assumptions"] == []


def test_nothing_is_made_at_the_far_side(sides: Sides, tmp_path: Path) -> None:
    plan(sides, dense_image(tmp_path / "dense.img", 2))
    assert names_in(sides.there) == set()
    assert not sides.state.exists() and not (tmp_path / "state").exists()
    sides.program.await_none()


@pytest.mark.parametrize("changed", [0, 3, 12])
def test_what_the_far_side_has_is_not_sent(sides: Sides, tmp_path: Path, changed: int) -> None:
    image = dense_image(tmp_path / "dense.img", 12)
    sides.target.write_bytes(content(image))
    with open(sides.target, "r+b") as file:
        for place in range(changed):
            file.seek(place * MIB + 70000)  # in the second of a chunk's blocks
            file.write(b"old")
    (disk,) = plan(sides, image)["disks"]
    assert disk["bytes_to_send"] == exactly(changed * 65536)
    assert disk["bytes_known"] == exactly(12 * MIB - changed * 65536)
    assert plan(sides, image, "--whole")["disks"][0]["bytes_known"] == exactly(0)


def test_the_target_may_be_in_use_and_stays_as_it_is(sides: Sides, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "dense.img", 3)
    sides.target.write_bytes(content(image))
    os.utime(sides.target, (1e9, 1e9))
    before = sides.target.stat()
    with open(sides.target, "r+b") as held:  # as a guest's backend has it
        fcntl.flock(held, fcntl.LOCK_EX)
        (disk,) = plan(sides, image)["disks"]
        fcntl.lockf(held, fcntl.LOCK_EX)
        plan(sides, image)
    assert disk["bytes_known"] == exactly(3 * MIB)
    after = sides.target.stat()
    for name in ("st_ino", "st_mtime_ns", "st_ctime_ns", "st_atime_ns", "st_mode", "st_size"):
        assert getattr(after, name) == getattr(before, name), name
    assert sides.left() == set()


def test_what_an_interrupted_copy_has_left_counts(sides: Sides, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "dense.img", 8)
    running = sides.start(image, "--rate", "8mbit", "--streams", "2")
    running.await_sent(2 * MIB)
    part = sides.there / ".disk.img.xenplugin-part"
    wait_until(lambda: part.exists() and part.stat().st_blocks * 512 >= MIB, "a chunk at the far side")
    running.signal(2)
    assert running.end().code == 130
    sides.assert_kept()
    kept = {path: (path.stat(), path.read_bytes()) for path in sides.there.iterdir()}
    (disk,) = plan(sides, image)["disks"]
    assert disk["bytes_known"]["middle"] >= MIB
    assert disk["bytes_known"]["middle"] + disk["bytes_to_send"]["middle"] == 8 * MIB
    for path, (status, data) in kept.items():
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == (status.st_mtime_ns, status.st_ino)
        assert path.read_bytes() == data
    assert sides.copy(image).result["resumed"] > 0


def test_it_compares_only_data(sides: Sides, image: Path) -> None:
    """Holes are not read, and zeros are not sent."""
    found = plan(sides, image)
    assert found["bytes_compared"] <= image.stat().st_blocks * 512 + 2 * MIB
    assert found["disks"][0]["bytes_to_send"]["high"] < image.stat().st_size / 2


def test_through_the_control_channel(sides: Sides, tmp_path: Path) -> None:
    sides.far["ports"] = "0"
    found = plan(sides, dense_image(tmp_path / "dense.img", 3))
    assert found["streams"] == 0 and found["rtt_seconds"] > 0
    assert found["rate_bytes_per_second"]["middle"] > 0
    assert names_in(sides.there) == set()


def test_the_rate_limit_holds_for_the_measurement(sides: Sides, tmp_path: Path) -> None:
    found = plan(sides, dense_image(tmp_path / "dense.img", 1), "--rate", "16mbit")
    assert 0 < found["rate_bytes_per_second"]["high"] <= 2e6


def test_a_target_that_cannot_be_one_is_said(sides: Sides, image: Path) -> None:
    done = sides.copy(image, "-N", target=sides.there, code=15)
    assert "is a directory" in done.error


def test_people_get_it_in_words(sides: Sides, image: Path) -> None:
    words = sides.words(image, "-N")
    done = sides.program.run(*words)
    assert "to send at" in done.err and "about" in done.err
    assert "disk.img" not in done.out and image.name in done.out and "there already" in done.out
    quiet = sides.program.run(*words, "-q")
    assert (quiet.out, quiet.err) == ("", "")
