"""Bad files in folders that others can write to, and bad state directories: the error names them; nothing hangs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.helpers.images import names_in
from tests.helpers.program import Program

_MAKE: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a symbolic link": lambda path: path.symlink_to("/dev/zero"),
    "a directory": Path.mkdir,
}


@pytest.mark.parametrize("kind", _MAKE)
def test_a_journal_that_is_none(sides: Sides, image: Path, kind: str) -> None:
    part, journal = (sides.there / f".disk.img.xenplugin-{end}" for end in ("part", "journal"))
    part.touch(0o600)
    _MAKE[kind](journal)
    done = sides.copy(image, code=15)
    assert f"{journal} cannot be the journal of a copy: it is {kind}" in done.error and "remove it" in done.hint
    assert sides.left() == {part.name, journal.name} and not sides.target.exists()


def test_a_journal_of_terabytes_is_replaced(sides: Sides, image: Path) -> None:
    part, journal = (sides.there / f".disk.img.xenplugin-{end}" for end in ("part", "journal"))
    part.touch(0o600)
    journal.touch()
    os.truncate(journal, 1 << 42)
    sides.copy(image)
    sides.assert_clean()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "absolute path"),
        ("state", "absolute path"),
        ("~/state", "absolute path"),
        ("{here}/file", "is not a directory"),
        ("{here}/file/below", "is not a directory"),
        ("{here}/nowhere", "is not a directory"),
    ],
)
@pytest.mark.parametrize("words", [["status"], ["recover"], ["clean", "--yes"], ["copy", "source.img", "new.img"]])
def test_a_state_directory_that_cannot_be_one(
    program: Program, image: Path, tmp_path: Path, words: list[str], value: str, says: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("file")
    (tmp_path / "conf").write_text(f'state_dir = "{value.format(here=tmp_path)}"\n')
    before = names_in(tmp_path)
    done = program.run(words[0], "--config", "conf", *words[1:], code=10)
    assert "state_dir" in done.error and says in done.error and done.hint
    assert names_in(tmp_path) == before


def test_a_state_directory_on_a_read_only_file_system(
    program: Program, image: Path, tmp_path: Path, loop_device: Callable[[Path], Path]
) -> None:
    """A device as target needs it; a file does not."""
    (tmp_path / "disk").touch()
    os.truncate(tmp_path / "disk", image.stat().st_size)
    device = loop_device(tmp_path / "disk")
    (tmp_path / "conf").write_text('state_dir = "/proc/xenplugin"\n')
    done = program.run("copy", "--config", "conf", image, device, code=10)
    assert "/proc/xenplugin" in done.error and "state_dir" in done.hint
    program.run("copy", "--config", "conf", image, "new.img")
