"""A sample of an image tells it from most others."""

from __future__ import annotations

from pathlib import Path

import pytest

from xenplugin.geometry import CHUNK
from xenplugin.image.source.content_sample import sample
from xenplugin.image.source.raw import open_source


def of(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with open_source(path) as source:
        return sample(source)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_a_small_image_is_read_whole(tmp_path: Path, size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    found = of(tmp_path / "a", data)
    assert found == of(tmp_path / "b", data)
    for at in {0, size // 2, size - 1} if size else ():
        assert of(tmp_path / "b", data[:at] + b"\xff" + data[at + 1 :]) != found


def test_of_a_large_image_the_first_and_the_last_chunk_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    found = {""}
    for at in (0, 99 * CHUNK, None):
        with path.open("r+b") as file:
            file.truncate(0)
            file.truncate(100 * CHUNK)
            if at is not None:
                file.seek(at)
                file.write(b"x")
        with open_source(path) as source:
            found.add(sample(source))
    assert len(found) == 4
