"""`xenplugin copy` as its users meet it: what arrives, what is said, what the exit code is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.helpers.images import MIB, content, dense_image, make_image, names_in
from tests.helpers.program import PROGRAM, Program

RESULT = {
    "seconds": float,
    "bytes_image": int,
    "bytes_data": int,
    "bytes_wire": int,
    "phases": dict,
    "downtime": type(None),
    "cipher": str,
    "level": int,
    "streams": int,
    "resumed": int,
    "sha256": str,
}


def test_a_copy_is_the_image_and_as_sparse(sides: Sides, image: Path) -> None:
    done = sides.copy(image)
    assert content(sides.target) == content(image)
    assert sides.target.stat().st_blocks <= image.stat().st_blocks + 128
    sides.assert_clean()
    result = done.result
    assert result["bytes_image"] == image.stat().st_size
    assert result["bytes_wire"] < image.stat().st_size / 2


def test_result_has_the_promised_fields(sides: Sides, image: Path) -> None:
    done = sides.copy(image)
    assert {key: type(value) for key, value in done.result.items()} == RESULT
    assert done.result == done.event("finished")["result"]
    assert set(done.result["phases"]) == {"connect", "transfer", "finish"}
    assert re.fullmatch("tree1:[0-9a-f]{64}", done.result["sha256"])
    kinds = [event["event"] for event in done.events]
    assert kinds[0] == "started" and kinds[-1] == "finished"
    assert kinds.index("linked") > kinds.index("phase")
    assert all(event["time"] > 1e9 for event in done.events)


def test_without_a_host_it_copies_on_this_machine(program: Program, image: Path, tmp_path: Path) -> None:
    done = program.run("copy", "--json", image, "other.img")
    assert content(tmp_path / "other.img") == content(image)
    assert done.err == ""  # --json is quiet, no terminal: no progress
    assert done.result["resumed"] == 0


def test_a_target_that_is_a_directory_with_a_slash_gets_the_name(sides: Sides, image: Path) -> None:
    sides.target = sides.there / image.name
    words = sides.words(image)
    sides.program.run(*words[:-1], f"far:{sides.there}/")
    assert content(sides.target) == content(image)


@pytest.mark.parametrize(
    ("target", "arrives"),
    [
        ("~/disk.img", "disk.img"),
        ("disk.img", "disk.img"),
        ("./~", "~"),
        ("~", "source.img"),
        ("", "source.img"),
        (".", "source.img"),
    ],
)
def test_paths_of_the_far_host_are_below_its_home(sides: Sides, image: Path, target: str, arrives: str) -> None:
    words = sides.words(image)
    sides.program.run(*words[:-1], f"far:{target}")
    home = sides.folder / "home"
    assert names_in(home) - {".local"} == {arrives} and content(home / arrives) == content(image)
    assert "~" not in names_in(sides.folder)


def test_errors_name_the_path_that_the_far_host_uses(sides: Sides, image: Path) -> None:
    words = sides.words(image)
    done = sides.program.run(*words[:-1], "far:~/missing/disk.img", code=15)
    assert f"{sides.folder}/home/missing" in done.error + done.hint
    done = sides.program.run(*words[:-1], "far:~no-such-user/disk.img", code=15)
    assert "no-such-user" in done.error and "does not exist" in done.error


def test_a_tilde_on_this_host_is_the_shells(program: Program, image: Path, tmp_path: Path) -> None:
    """As with scp and cp: only the shell expands it, so a quoted one is a name."""
    program.run("copy", image, "~")
    assert content(tmp_path / "~") == content(image)


def test_a_target_that_can_only_be_a_directory_gets_the_name(program: Program, image: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for target in (".", "./", "../folder/.", "../folder/"):
        program.run("copy", image, target, cwd=tmp_path / "home")
    assert content(tmp_path / "home" / image.name) == content(tmp_path / "folder" / image.name) == content(image)


def test_an_empty_target_is_refused(program: Program, image: Path) -> None:
    assert "DST is empty" in program.run("copy", image, "", code=2).error


def test_a_host_that_is_a_whole_command(program: Program, image: Path, tmp_path: Path) -> None:
    """-s '': all before the last colon, slashes or not, is the command (as in xl migrate)."""
    command = " ".join([*PROGRAM, "receive"])
    target = tmp_path / "other.img"
    done = program.run("copy", "--json", "-s", "", image, f"{command}:{target}")
    assert content(target) == content(image)
    assert done.result["streams"] >= 1


@pytest.mark.parametrize("size", [0, 1, 65536, MIB + 1])
def test_images_of_any_size(program: Program, tmp_path: Path, size: int) -> None:
    image = make_image(tmp_path / "odd.img", size=size)
    program.run("copy", image, "other.img")
    assert content(tmp_path / "other.img") == content(image)


def test_dry_run_moves_nothing(sides: Sides, image: Path) -> None:
    done = sides.copy(image, "-N")
    assert names_in(sides.there) == set()
    assert [event["event"] for event in done.events] == ["started", "linked", "estimated"]
    assert done.result["outcome"] == "planned"  # tests/end_to_end/copy/test_estimate.py has the rest


def test_dry_run_finds_what_is_wrong_here(program: Program, tmp_path: Path) -> None:
    done = program.run("copy", "-N", "missing.img", "other.img", code=13)
    assert "missing.img" in done.error


def test_a_difference_is_small(sides: Sides, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "dense.img", 12)
    first = sides.copy(image)
    with open(image, "r+b") as file:
        file.seek(5 * MIB + 300)
        file.write(b"something else")
    done = sides.copy(image)
    assert content(sides.target) == content(image)
    assert first.result["bytes_wire"] > 11 * MIB
    assert done.result["bytes_wire"] < MIB
    assert done.result["resumed"] == 0
    sides.assert_clean()


def test_a_difference_to_a_smaller_old_image(sides: Sides, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "dense.img", 6)
    sides.target.write_bytes(content(image)[: 3 * MIB + 777])
    done = sides.copy(image)
    assert content(sides.target) == content(image)
    assert done.result["bytes_wire"] < 4 * MIB


def test_the_option_whole_sends_everything(sides: Sides, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "dense.img", 6)
    sides.copy(image)
    done = sides.copy(image, "--whole")
    assert content(sides.target) == content(image)
    assert done.result["bytes_wire"] > 5 * MIB


def test_the_target_keeps_its_mode(sides: Sides, image: Path) -> None:
    sides.target.write_bytes(b"old")
    sides.target.chmod(0o640)
    sides.copy(image)
    assert sides.target.stat().st_mode & 0o777 == 0o640
    assert content(sides.target) == content(image)
