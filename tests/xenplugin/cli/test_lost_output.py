"""Output that cannot be written: what is done and the exit code are those of the work, and the loss is said."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.helpers.program import PROGRAM, Program

LOST = "could not be written"


def run(program: Program, words: str, redirection: str) -> subprocess.CompletedProcess[str]:
    """`xenplugin WORDS REDIRECTION` by a shell; its exit status is the program's."""
    line = f"{shlex.join(PROGRAM)} {words} {redirection}"
    if redirection.startswith("|"):
        line += "; exit ${PIPESTATUS[0]}"
    return subprocess.run(
        ["bash", "-c", line], cwd=program.folder, env=program.env, capture_output=True, text=True, timeout=100
    )


@pytest.mark.parametrize(
    "redirection",
    [">/dev/full", "2>/dev/full", ">&-", "2>&-", "<&- >&- 2>&-", "| true", "2>&1 | true", ">/dev/full 2>/dev/full"],
)
def test_a_copy_is_made_whoever_reads_about_it(program: Program, image: Path, redirection: str) -> None:
    for options in ("--json -v", "--log-json", "-q"):
        target = program.folder / "copied.img"
        target.unlink(missing_ok=True)
        done = run(program, f"copy {options} {image} {target}", redirection)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        assert target.read_bytes() == image.read_bytes()
        assert sorted(path.name for path in program.folder.glob("copied*")) == ["copied.img"]


def test_a_lost_result_is_said_on_standard_error(program: Program, image: Path) -> None:
    done = run(program, f"copy --json {image} other.img", ">/dev/full")
    assert "standard output could not be written (No space left on device)" in done.stderr
    done = run(program, f"copy --json --log-json {image} other.img", ">&-")
    notices = [json.loads(line) for line in done.stderr.splitlines()]
    assert "(it was closed)" in notices[-1]["text"]


def test_nothing_is_said_where_nothing_was_to_be_written(program: Program, image: Path) -> None:
    for redirection in (">&-", "2>&-"):
        done = run(program, f"copy -q {image} other.img", redirection)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_lost_error_is_said_on_standard_output(program: Program) -> None:
    for redirection in ("2>/dev/full", "2>&-"):
        done = run(program, "copy missing.img other.img", redirection)
        assert done.returncode == 13
        assert done.stdout == "xenplugin: error: cannot open missing.img: No such file or directory\n"
        done = run(program, "copy --json missing.img other.img", redirection)
        assert (done.returncode, done.stdout) == (13, "")  # JSON was promised there


@pytest.mark.parametrize("words", ["--help", "copy --help", "--version", "status", "status --json"])
@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "| true", "2>&-"])
def test_what_is_only_shown_ends_well(program: Program, words: str, redirection: str) -> None:
    done = run(program, words, redirection)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("words", ["", "--nonsense", "copy one-word"])
def test_a_wrong_command_line_keeps_its_code(program: Program, words: str) -> None:
    for redirection in (">/dev/full", "2>/dev/full", "2>&-"):
        assert run(program, words, redirection).returncode == 2


def test_a_sealed_file_is_not_written_into_by_what_is_printed(program: Program, image: Path) -> None:
    """With standard error closed the next file that is opened would have its number."""
    for redirection in ("2>&-", "<&- >&- 2>&-"):
        for name in ("key", "sealed", "opened"):
            (program.folder / name).unlink(missing_ok=True)
        assert run(program, f"seal -v --key-file key {image} sealed", redirection).returncode == 0
        assert run(program, "verify --key-file key sealed", redirection).returncode == 0
        assert run(program, "open --key-file key sealed opened", redirection).returncode == 0
        assert (program.folder / "opened").read_bytes() == image.read_bytes()
