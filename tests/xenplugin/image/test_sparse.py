"""Finding data between holes: every range once, rounded out, on any file system."""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.image_kit import sparse_image
from xenplugin.geometry import CHUNK, PAGE
from xenplugin.image.sparse import Run, chunk_runs, data_ranges, has_data


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize("unit", [1, PAGE, 8 * PAGE, CHUNK])
def test_ranges_are_the_data_rounded_out(tmp_path: Path, unit: int) -> None:
    rng = random.Random(unit)
    size = 4 * CHUNK
    pages = {rng.randrange(size // PAGE) for _ in range(60)}
    path = sparse_image(tmp_path / "image", size, [(page * PAGE, PAGE) for page in pages])
    for start, stop in ((0, size), (CHUNK, 3 * CHUNK), (2 * CHUNK, 2 * CHUNK), (CHUNK, CHUNK + 3 * PAGE)):
        step = max(unit, PAGE)
        units = {page * PAGE // step for page in pages if start <= page * PAGE < stop}
        wanted = {at for at in range(start, stop, PAGE) if at // step in units}
        with opened(path) as fd:
            ranges = list(data_ranges(fd, start, stop, unit))
        assert {at for begin, end in ranges for at in range(begin, end, PAGE)} == wanted
        assert all(a < b for a, b in ranges)
        assert all(left[1] < right[0] for left, right in itertools.pairwise(ranges))


def test_runs_of_chunks_take_turns_and_cover_everything(tmp_path: Path) -> None:
    path = sparse_image(tmp_path / "image", 10 * CHUNK + 5, [(CHUNK + 4096, 10), (2 * CHUNK, 10), (9 * CHUNK, 1)])
    with opened(path) as fd:
        assert list(chunk_runs(fd, 0, 11)) == [
            Run(0, 1, True),
            Run(1, 2, False),
            Run(3, 6, True),
            Run(9, 1, False),
            Run(10, 1, True),
        ]
        assert has_data(fd, 2 * CHUNK, CHUNK) and not has_data(fd, 3 * CHUNK, 6 * CHUNK)


def test_a_file_system_that_does_not_report_holes_has_data_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "lseek", unsupported)
    with opened(sparse_image(tmp_path / "image", 3 * CHUNK, [])) as fd:
        assert list(data_ranges(fd, 0, 3 * CHUNK)) == [(0, 3 * CHUNK)]
        assert list(chunk_runs(fd, 0, 3)) == [Run(0, 3, False)]
        assert has_data(fd, 0, CHUNK)


def test_a_file_that_shrinks_meanwhile_ends_the_ranges(tmp_path: Path) -> None:
    path = sparse_image(tmp_path / "image", 9 * CHUNK, [(0, CHUNK), (5 * CHUNK, CHUNK)])
    with opened(path) as fd:
        ranges = data_ranges(fd, 0, 9 * CHUNK)
        assert next(ranges) == (0, CHUNK)
        os.truncate(path, CHUNK)
        assert len(list(ranges)) <= 1
