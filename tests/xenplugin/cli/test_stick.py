"""Images on USB sticks: file systems without hard links and without permissions."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.images import content, names_in
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
