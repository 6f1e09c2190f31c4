"""A target that cannot be replaced at the end is refused at the beginning."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.image_kit import SIZE, needs_root, sink_for, sparse_image
from tests.helpers.images import names_in
from xenplugin.errors import RefusedError
from xenplugin.image.safety.fixed_name import refuse_fixed_name

pytestmark = [pytest.mark.root, needs_root[1]]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose file "disk" may get attributes."""
    made = tmp_path / "folder"
    made.mkdir()
    sparse_image(made / "disk", SIZE, [])
    yield made
    subprocess.run(["chattr", "-R", "-i", "-a", made], capture_output=True, check=True)


@pytest.mark.parametrize("attribute", ["+i", "+a"])
def test_an_immutable_or_append_only_target(folder: Path, attribute: str) -> None:
    subprocess.run(["chattr", attribute, folder / "disk"], capture_output=True, check=True)
    with pytest.raises(RefusedError, match="immutable or append-only") as info:
        sink_for(folder / "disk", SIZE)
    assert info.value.hint == f"chattr -i -a {folder}/disk"
    assert names_in(folder) == {"disk"}


@pytest.mark.parametrize("name", ["disk", "new"])
def test_a_target_in_an_append_only_folder(folder: Path, name: str) -> None:
    subprocess.run(["chattr", "+a", folder], capture_output=True, check=True)
    with pytest.raises(RefusedError, match="append-only folder"):
        sink_for(folder / name, SIZE)


def test_another_users_target_in_a_sticky_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.chmod(0o1777)
    os.chown(folder / "disk", 1234, 1234)
    fd, around = os.open(folder / "disk", os.O_RDONLY), os.open(folder, os.O_RDONLY)
    try:
        for user, allowed in ((0, True), (1234, True), (1235, False)):
            monkeypatch.setattr(os, "geteuid", lambda user=user: user)
            if allowed:
                refuse_fixed_name("disk", fd, around)
            else:
                with pytest.raises(RefusedError, match="belongs to another user"):
                    refuse_fixed_name("disk", fd, around)
    finally:
        os.close(fd)
        os.close(around)
