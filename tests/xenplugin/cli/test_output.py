"""What a copy shows to people, on a terminal and elsewhere."""

from __future__ import annotations

import os
import pty
import re
import threading
from pathlib import Path

import pytest

from tests.helpers.images import dense_image
from tests.helpers.program import PROGRAM, Program


def test_the_result_is_printed_for_people(program: Program, image: Path) -> None:
    done = program.run("copy", image, "other.img")
    assert done.out == ""
    assert "other.img" in done.err and "done in" in done.err and "tree1:" in done.err
    assert "\x1b" not in done.err and "\r" not in done.err


def test_quiet_says_nothing(program: Program, image: Path) -> None:
    done = program.run("copy", "-q", image, "other.img")
    assert done.out + done.err == ""


def on_terminal(program: Program, *words: str | Path) -> str:
    """What `xenplugin WORDS` writes to a terminal on its standard error."""
    leader, follower = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        try:
            while piece := os.read(leader, 65536):
                seen.append(piece)
        except OSError:
            pass  # the last one closed it

    reader = threading.Thread(target=read)
    try:
        process = program.spawn(
            ["sh", "-c", 'exec "$@" 2>"$TERMINAL"', "sh", *PROGRAM, *words],
            env={"TERMINAL": os.ttyname(follower), "TERM": "xterm", "COLUMNS": "100"},
        )
        reader.start()
        assert process.end().code == 0
    finally:
        os.close(follower)
        reader.join(10)
        os.close(leader)
    return b"".join(seen).decode()


def test_progress_moves_on_a_terminal(program: Program, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "dense.img", 2)
    said = on_terminal(program, "copy", "--rate", "16mbit", image, "other.img")
    assert re.search(r"\d %", said) and "\x1b[" in said
    assert re.search(r"[\d.]+ (B|KiB|MiB) of 2\.0 MiB", said)
    assert "done in" in said
    assert said.rfind("done in") > said.rfind(" of 2.0 MiB")


@pytest.mark.slow
def test_no_progress_when_not_wanted(program: Program, tmp_path: Path) -> None:
    image = dense_image(tmp_path / "dense.img", 2)
    said = on_terminal(program, "copy", "--no-progress", "--rate", "16mbit", image, "other.img")
    assert " of 2.0 MiB" not in said and "done in" in said


def test_a_terminal_gets_no_control_characters_from_the_far_side(program: Program, image: Path) -> None:
    ssh = "sh -c 'printf \"\\033]0;owned\\007\\n\" >&2; exit 3'"
    done = program.run("copy", "-s", ssh, image, "far:/x", code=11)
    assert "\x1b" not in done.err and "\x07" not in done.err
    assert "owned" in done.err
