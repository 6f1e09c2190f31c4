"""The command line: what cannot be done is said in one line; help; events as JSON."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.helpers.images import content, names_in
from tests.helpers.program import PROGRAM, Program


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["copy"], 2, "SRC"),
        (["copy", "--nonsense", "source.img", "b"], 2, "--nonsense"),
        (["copy", "source.img", "--", "-oProxyCommand=x:/b"], 2, "must not begin with"),
        (["copy", "--streams", "33", "source.img", "b"], 2, "--streams 33: streams are"),
        (["copy", "--level", "20", "source.img", "b"], 2, "--level 20: a level is"),
        (["copy", "--rate", "200", "source.img", "b"], 2, "--rate 200: a rate needs a unit"),
        (["copy", "--rate", "so fast", "source.img", "b"], 2, "--rate 'so fast': a rate is"),
        (["copy", "--cipher", "rot13", "source.img", "b"], 2, "--cipher rot13: unknown cipher"),
        (["copy", "--address", "nowhere", "source.img", "b"], 2, "--address nowhere: "),
        (["copy", "--congestion", "no name", "source.img", "b"], 2, "--congestion 'no name': "),
        (["copy", "--congestion", "foo", "source.img", "b"], 2, "no TCP congestion control foo"),
        (["copy", "-N", "--congestion", "foo", "source.img", "b"], 2, "no TCP congestion control foo"),
        (["copy", "--config", "congestion.toml", "source.img", "b"], 10, "no TCP congestion control foo"),
        (["copy", "--config", "missing.toml", "source.img", "b"], 10, "missing.toml"),
        (["copy", "--config", "bad.toml", "source.img", "b"], 10, "bad.toml"),
        (["copy", "--config", "unknown.toml", "source.img", "b"], 10, "colour"),
        (["copy", "--config", "short.toml", "source.img", "b"], 10, 'short.toml: silence = "5s": it must be more'),
        (
            ["copy", "--config", "bare.toml", "source.img", "b"],
            10,
            'patience = 120: a time needs a unit: "120s"',
        ),
        (["copy", "--config", "misspelt.toml", "source.img", "b"], 10, "statedir"),
        (["verify", "--config", "misspelt.toml", "--key-file", "key", "sealed"], 10, "statedir"),
        (["copy", "missing.img", "b"], 13, "missing.img"),
        (["copy", ".", "b"], 15, "directory"),
        (["copy", "/dev/null", "b"], 15, "character device"),
        (["wriggle"], 2, "wriggle"),
    ],
)
def test_requests_that_cannot_be_met_are_one_line(
    program: Program, image: Path, tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    (tmp_path / "bad.toml").write_text("rate = = 3\n")
    (tmp_path / "short.toml").write_text("silence = '5s'\n")
    (tmp_path / "congestion.toml").write_text("congestion = 'foo'\n")
    (tmp_path / "bare.toml").write_text("patience = 120\n")
    (tmp_path / "misspelt.toml").write_text("statedir = '/srv'\n")
    (tmp_path / "unknown.toml").write_text("colour = 'red'\n")
    before = names_in(tmp_path)
    done = program.run(*words, code=code)
    assert says in done.error
    assert names_in(tmp_path) == before


def test_a_folder_as_target_gets_a_hint(program: Program, image: Path, tmp_path: Path) -> None:
    program.run("seal", "--key-file", "key", image, "sealed")
    folder = tmp_path / "folder"
    folder.mkdir()
    for words in (["copy", image, "folder"], ["open", "--key-file", "key", "sealed", "folder"]):
        done = program.run(*words, code=15)
        assert done.error == f"{folder} is a directory" and done.hint == f"name a file in it: {folder}/NAME"
    assert "name a file in it: ./NAME" in program.run("seal", "--key-file", "key", image, ".", code=15).hint
    program.run("copy", image, "./other/", code=15)  # no such folder
    (tmp_path / "other").mkdir()
    program.run("copy", image, "./other/")
    assert content(tmp_path / "other" / image.name) == content(image)


def test_a_copy_on_one_machine_has_no_far_side(sides: Sides, program: Program, image: Path, tmp_path: Path) -> None:
    there = tmp_path / "nowhere" / "b"
    assert program.run("copy", image, there, code=15).error == f"the directory of {there} does not exist"
    error = sides.copy(image, code=15, target=there).error
    assert error == f"far side: the directory of {there} does not exist"


def test_without_a_verb_the_help_is_shown_plainly(program: Program) -> None:
    done = subprocess.run(PROGRAM, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == program.run("--help").out


def test_help_and_version(program: Program) -> None:
    assert "copy" in program.run("--help").out
    assert "--rate" in program.run("copy", "--help").out
    assert "xenplugin" in program.run("--version").out


def test_log_json_is_json_when_it_fails_too(sides: Sides, tmp_path: Path) -> None:
    done = sides.copy(tmp_path / "missing.img", code=13)
    failed = done.event("failed")
    assert failed["code"] == 13 and "missing.img" in failed["error"]
    assert done.out == ""
    assert json.loads(done.err.splitlines()[-1])["event"] == "failed"
