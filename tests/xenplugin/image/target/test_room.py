"""The room that a file system has for a new image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.images import MIB, dense_image
from xenplugin.errors import RefusedError
from xenplugin.image.beside import partial_name
from xenplugin.image.target import room


@pytest.mark.root
def test_what_a_partial_takes_is_room_and_the_old_image_is_not(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(8)
    path = str(folder / "disk.img")
    dense_image(folder / "disk.img", 4)
    assert room.check_room(path, 4 * MIB) == ""
    with pytest.raises(RefusedError, match=f"the file system of {folder} has .* and the image takes"):
        room.check_room(path, 5 * MIB)
    dense_image(Path(partial_name(path)), 2)
    assert room.check_room(path, 4 * MIB) == ""
    with pytest.raises(RefusedError):
        room.check_room(path, 5 * MIB)


@pytest.mark.root
def test_where_data_may_take_less_it_is_only_said(
    small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(small_disk(2) / "disk.img")
    monkeypatch.setattr(room, "mounts", lambda: iter(()))
    assert "only if they are compressed" in room.check_room(path, 3 * MIB)
    assert room.check_room(path, MIB) == ""


@pytest.mark.parametrize("path", ["/dev/null", "/nowhere/disk.img"])
def test_what_is_no_file_is_not_judged(path: str) -> None:
    assert room.check_room(path, 1 << 60) == ""
