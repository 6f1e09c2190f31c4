"""An output that is one of the inputs is refused by every verb, and nothing is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import Sides
from tests.helpers.images import content, names_in
from tests.helpers.program import Program


@pytest.fixture
def folder(program: Program, image: Path, tmp_path: Path) -> Path:
    program.run("seal", "--key-file", "key", image, "sealed")
    os.link(image, tmp_path / "hard")
    (tmp_path / "conf").write_text(f'state_dir = "{tmp_path}/state"\n')
    for name in ("part", "journal"):
        (tmp_path / f".{name}.xenplugin-{name}").write_bytes(content(tmp_path / "key"))
        (tmp_path / f".{name}.xenplugin-{name}").chmod(0o600)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("open --key-file key sealed key", "key is the key file"),
        ("open --key-file key sealed sealed", "sealed is the sealed file"),
        ("open --key-file key --config conf sealed conf", "conf is the configuration file"),
        ("open --key-file .part.xenplugin-part sealed part", ".part.xenplugin-part is the key file"),
        ("open --key-file .journal.xenplugin-journal sealed journal", ".journal.xenplugin-journal is the key file"),
        ("seal --key-file key source.img source.img", "source.img is SRC"),
        ("seal --key-file key source.img hard", "hard is SRC"),
        ("seal --key-file key source.img key", "key is the key file"),
        ("seal --key-file new source.img ./new", "./new is the key file"),
        ("copy source.img source.img", "source.img is SRC"),
        ("copy -N source.img hard", "hard is SRC"),
        ("copy --config conf source.img conf", "conf is the configuration file"),
        ("copy .part.xenplugin-part part", ".part.xenplugin-part is SRC"),
    ],
)  # fmt: skip
def test_it_is_refused(program: Program, folder: Path, words: str, what: str) -> None:
    before = {name: content(folder / name) for name in names_in(folder) - {"home"}}
    done = program.run(*words.split(), code=15)
    assert what in done.error and "would be overwritten" in done.error
    assert done.hint == "choose another target"
    assert {name: content(folder / name) for name in names_in(folder) - {"home"}} == before


def test_a_source_that_is_the_partial_of_a_far_target_is_refused(sides: Sides, image: Path) -> None:
    source = sides.there / ".disk.img.xenplugin-part"
    os.rename(image, source)
    before = content(source)
    done = sides.copy(source, code=15)
    assert f"{source} is the source disk itself" in done.error
    assert content(source) == before and sides.left() == {source.name}
