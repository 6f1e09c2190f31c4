"""Images on USB sticks: file systems without hard links and without permissions."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.helpers.images import content, dense_image, names_in
from tests.helpers.program import Program


def test_an_image_is_carried_on_a_stick(program: Program, image: Path, tmp_path: Path, stick: Path) -> None:
    program.run("seal", "--key-file", "key", image, stick / "sealed")
    assert names_in(stick) == {"sealed"}
    program.run("verify", "--key-file", "key", stick / "sealed")
    done = program.run("seal", "--key-file", "key", image, stick / "SEALED", code=15)
    assert "exists already" in done.error
    program.run("open", "--key-file", "key", stick / "sealed", "opened.img")
    program.run("open", "--key-file", "key", stick / "sealed", stick / "opened.img")
    program.run("open", "--key-file", "key", stick / "sealed", stick / "opened.img")
    assert content(tmp_path / "opened.img") == content(stick / "opened.img") == content(image)
    done = program.run("open", "--key-file", "key", stick / "sealed", stick / "Sealed", code=15)
    assert "is the sealed file" in done.error
    assert names_in(stick) == {"sealed", "opened.img"}


def test_a_copy_to_a_stick_and_back(program: Program, image: Path, tmp_path: Path, stick: Path) -> None:
    for _ in range(2):
        program.run("copy", image, stick / "copy.img")
        assert content(stick / "copy.img") == content(image) and names_in(stick) == {"copy.img"}
    program.run("copy", stick / "copy.img", tmp_path / "back.img")
    assert content(tmp_path / "back.img") == content(image)


def test_a_key_does_not_go_on_a_stick(program: Program, image: Path, stick: Path) -> None:
    done = program.run("seal", "--key-file", stick / "key", image, stick / "sealed", code=10)
    assert "read by others" in done.error and "elsewhere" in done.hint
    assert names_in(stick) == set()


def test_an_interrupted_copy_to_a_stick_can_be_started_again(program: Program, tmp_path: Path, stick: Path) -> None:
    image = dense_image(tmp_path / "dense.img", 8)
    running = program.start("copy", "--log-json", "--rate", "40mbit", image, stick / "copy.img")
    running.await_sent(2 << 20)
    running.signal(signal.SIGINT)
    assert running.end().code == 130
    program.await_none()
    assert ".copy.img.xenplugin-part" in names_in(stick)
    program.run("copy", image, stick / "copy.img")
    assert content(stick / "copy.img") == content(image) and names_in(stick) == {"copy.img"}
