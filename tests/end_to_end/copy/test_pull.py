"""`xenplugin copy HOST:SRC DST`: the far host sends, and this one receives."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.copy.conftest import HELD, Pull
from tests.helpers.image_kit import digest_file
from tests.helpers.images import MIB, content, dense_image, make_image, names_in
from tests.helpers.program import wait_until


def test_a_pulled_image_is_the_image_and_as_sparse(pull: Pull, tmp_path: Path) -> None:
    image = make_image(tmp_path / "source.img")
    done = pull.run(image)
    target = pull.sides.target
    assert content(target) == content(image)
    assert target.stat().st_blocks <= image.stat().st_blocks + 128
    pull.assert_clean()
    result = done.result
    assert result == done.event("finished")["result"]
    assert result["sha256"] == digest_file(image) and result["bytes_image"] == image.stat().st_size
    assert set(result["phases"]) == {"connect", "transfer", "finish"}
    assert result["bytes_wire"] > 0 and result["streams"] >= 1 and result["resumed"] == 0


def test_events_are_those_of_a_push(pull: Pull, image: Path) -> None:
    done = pull.run(image)
    kinds = [event["event"] for event in done.events if event["event"] != "progress"]
    assert kinds == ["started", "phase", "linked", "phase", "phase", "finished"]
    assert done.event("started")["image"] == f"far:{image}"
    assert done.event("started")["target"] == str(pull.sides.target)
    assert done.event("linked")["address"] == "far"
    assert done.event("progress")["bytes_total"] == 4 * MIB


def test_only_the_difference_is_sent(pull: Pull, image: Path) -> None:
    first = pull.run(image)
    with open(image, "r+b") as file:
        file.seek(2 * MIB + 300)
        file.write(b"something else")
    done = pull.run(image)
    assert content(pull.sides.target) == content(image)
    assert first.result["bytes_wire"] > 4 * MIB > 2 * MIB > done.result["bytes_wire"]
    whole = pull.run(image, "--whole")
    assert whole.result["bytes_wire"] > 4 * MIB
    pull.assert_clean()


def test_paths_of_the_far_host_are_below_its_home(pull: Pull, image: Path) -> None:
    home = pull.sides.folder / "home"
    os.rename(image, home / "disk.img")
    for source in ("~/disk.img", "disk.img", "./disk.img"):
        pull.run(source)
        assert content(pull.sides.target) == content(home / "disk.img")
        pull.sides.target.unlink()
    pull.run("disk.img", target=f"{pull.sides.there}/")
    assert names_in(pull.sides.there) == {"disk.img"}
    missing = pull.run("~/missing.img", code=13)
    assert missing.error.startswith(f"far side: cannot open {home}/missing.img")
    assert missing.hint == "check the path"
    assert len([line for line in missing.err.splitlines() if "missing.img" in line]) == 1
    assert "no-such-user" in pull.run("~no-such-user/disk.img", code=15).error


def test_what_the_far_side_refuses_is_its_error(pull: Pull, tmp_path: Path) -> None:
    (tmp_path / "qcow2.img").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(MIB))
    done = pull.run(tmp_path / "qcow2.img", code=13)
    assert "cannot examine" in done.error and "--format raw" in done.hint
    pull.run(tmp_path / "qcow2.img", "--format", "raw")
    assert content(pull.sides.target) == content(tmp_path / "qcow2.img")
    assert "is a directory" in pull.run(tmp_path, code=15).error


def test_what_is_refused_here_is_this_sides_error(pull: Pull, image: Path) -> None:
    pull.sides.target.write_bytes(b"old content")
    with open(pull.sides.target, "rb"):
        done = pull.run(image, code=15)
    assert "in use" in done.error and "far side" not in done.error
    assert content(pull.sides.target) == b"old content"
    done = pull.run(image, code=15, target=pull.sides.there / "missing" / "disk.img")
    assert "does not exist" in done.error and "mkdir -p" in done.hint
    done = pull.run(image, code=15, target=image)
    assert "source disk itself" in done.error
    pull.assert_clean()


@pytest.mark.root
def test_a_full_disk(pull: Pull, image: Path, small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(2)
    refused = pull.run(image, code=15, target=disk / "disk.img")
    assert "free" in refused.error and "far side" not in refused.error and names_in(disk) == set()
    done = pull.run(image, "--force", "room", code=13, target=disk / "disk.img")
    assert "No space left" in done.error and "far side" not in done.error
    assert names_in(disk) == set()


def test_options_reach_the_side_that_sends(pull: Pull, tmp_path: Path) -> None:
    image = make_image(tmp_path / "source.img")
    done = pull.run(image, "--level", "store", "--cipher", "chacha20-poly1305", "--streams", "1")
    assert done.result["cipher"] == "chacha20-poly1305" and done.result["streams"] == 1
    assert done.result["bytes_wire"] > done.result["bytes_data"]
    assert content(pull.sides.target) == content(image)


def test_without_a_port_the_data_goes_through_ssh(pull: Pull, image: Path) -> None:
    pull.sides.near["ports"] = "0"
    done = pull.run(image)
    assert content(pull.sides.target) == content(image)
    assert done.result["streams"] == 0 and "through ssh" in done.notices()
    pull.assert_clean()


def test_an_interrupted_pull_is_resumed(pull: Pull, image: Path) -> None:
    running = pull.start(image, *HELD)
    running.await_sent(2 * MIB)
    running.signal(signal.SIGINT)
    done = running.end(within=20)
    assert done.code == 130 and "run the same command again" in done.hint
    pull.sides.assert_kept()
    done = pull.run(image)
    assert done.result["resumed"] > 0 and done.result["bytes_wire"] < 4 * MIB
    assert content(pull.sides.target) == content(image)
    pull.assert_clean()


@pytest.mark.slow
def test_a_far_side_that_is_killed(pull: Pull, image: Path) -> None:
    running = pull.start(image, *HELD)
    running.await_sent(2 * MIB)
    os.kill(pull.far(), signal.SIGKILL)
    done = running.end()
    assert done.code == 14 and "run the same command again" in done.hint
    pull.sides.assert_kept()
    assert pull.run(image).result["resumed"] > 0


@pytest.mark.slow
def test_nothing_is_left_if_this_side_is_killed(pull: Pull, image: Path) -> None:
    running = pull.start(image, *HELD)
    running.await_sent(2 * MIB)
    running.signal(signal.SIGKILL)
    running.process.wait()
    pull.sides.assert_kept()
    pull.run(image)
    assert content(pull.sides.target) == content(image)
    pull.assert_clean()


@pytest.mark.slow
def test_a_source_that_changes_meanwhile(pull: Pull, image: Path) -> None:
    running = pull.start(image, *HELD)
    running.await_sent(MIB)
    with running.stopped(), open(image, "r+b") as file:
        file.write(b"changed")
    done = running.end()
    assert done.code == 13 and "far side" in done.error and "changed" in done.error
    pull.assert_clean()


def test_two_far_hosts_are_refused_with_the_way_to_do_it(pull: Pull) -> None:
    done = pull.sides.program.run("copy", "hosta:/srv/a b.img", "hostb:/srv/x", code=2)
    assert done.hint == "run it on one of them: ssh hosta 'xenplugin copy '\"'\"'/srv/a b.img'\"'\"' hostb:/srv/x'"


def test_a_target_that_cannot_be_is_refused_before_the_log_in(pull: Pull, image: Path) -> None:
    pull.sides.ssh = "/nonexistent/ssh"
    assert "is a directory" in pull.run(image, code=15, target=pull.sides.there).error
    assert "mkdir -p" in pull.run(image, code=15, target=pull.sides.there / "missing" / "x").hint
    assert "no block device" in pull.run(image, code=15, target="/dev/vg0/not-there").error


def test_what_cannot_be_asked_for(pull: Pull) -> None:
    program = pull.sides.program
    for source in ("far:", "far:~", "far:/srv/", "far:."):
        assert "names no file" in program.run("copy", source, "x", code=2).error
    assert "-N" in program.run("copy", "-N", "far:/x", "x", code=2).error
    assert "DST is empty" in program.run("copy", "far:/x", "", code=2).error


def test_a_host_that_is_a_whole_command(pull: Pull, image: Path) -> None:
    far = f"{sys.executable} -m xenplugin send"
    program = pull.sides.program
    program.run("copy", "-s", "", f"{far}:{image}", "other.img")
    assert content(pull.sides.folder / "other.img") == content(image)
    os.rename(image, pull.sides.folder / "a:b.img")
    program.run("copy", "-s", "", "a:b.img", "third.img")
    wait_until(lambda: content(pull.sides.folder / "third.img") == content(pull.sides.folder / "a:b.img"), "it")


def test_a_source_that_a_program_writes_to(pull: Pull, image: Path) -> None:
    with open(image, "r+b"):
        done = pull.run(image, code=15)
    assert "may be written to" in done.error and f"process {os.getpid()}" in done.error
    pull.assert_clean()


@pytest.mark.root
def test_a_larger_device(pull: Pull, image: Path, loop_device: Callable[[Path], Path]) -> None:
    """The user of this host decides about its device, not the far host's configuration."""
    backing = dense_image(pull.sides.folder / "backing.img", 5, seed=9)
    rest = content(backing)[4 * MIB :]
    device = loop_device(backing)
    pull.sides.far["larger_device"] = "zero"
    done = pull.run(image, target=device, code=15)
    assert "--larger-device" in done.hint
    pull.run(image, "--larger-device", "keep", target=device)
    assert content(backing) == content(image) + rest
