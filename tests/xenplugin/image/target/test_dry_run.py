"""What opening a target refuses is refused by a look at it as well, and that changes nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.image_kit import SIZE, needs_root, sparse_image
from tests.helpers.images import names_in
from xenplugin.errors import RefusedError
from xenplugin.image.beside import journal_name, partial_name
from xenplugin.image.target import dry_run


def look(path: Path) -> dry_run.TargetFacts:
    return dry_run.examine(
        str(path), SIZE, state_dir=path.parent / "state", attached=lambda _: None, larger_device="refuse"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "folder"
    made.mkdir()
    sparse_image(made / "disk", SIZE, [])
    yield made
    subprocess.run(["chattr", "-R", "-i", "-a", made], capture_output=True)


def test_a_file_and_a_name_for_one(folder: Path) -> None:
    assert look(folder / "disk").size == SIZE and look(folder / "new").size is None
    assert names_in(folder) == {"disk"}


@pytest.mark.root
@needs_root[1]
def test_a_name_that_cannot_be_given_to_another_file(folder: Path) -> None:
    subprocess.run(["chattr", "+i", folder / "disk"], check=True)
    with pytest.raises(RefusedError, match="immutable or append-only"):
        look(folder / "disk")
    subprocess.run(["chattr", "+a", folder], check=True)
    with pytest.raises(RefusedError, match="append-only folder"):
        look(folder / "new")


def test_a_journal_that_is_none(folder: Path) -> None:
    Path(partial_name(str(folder / "new"))).touch()
    os.mkfifo(journal_name(str(folder / "new")))
    with pytest.raises(RefusedError, match="cannot be the journal of a copy: it is a pipe"):
        look(folder / "new")
