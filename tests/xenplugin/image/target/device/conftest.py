"""A block device, with the file behind it, and an image for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.image_kit import (
    base_of,
    loop_device,
    send,
    sparse_image,
)
from xenplugin.geometry import BLOCK, CHUNK
from xenplugin.image.source.raw import open_source
from xenplugin.image.target.abstract import Attached
from xenplugin.image.target.sink import Sink, open_sink

SIZE = 7 * CHUNK + 8192
EXTENTS = [(0, BLOCK), (3 * CHUNK + 4096, 3 * BLOCK), (6 * CHUNK - 100, 200), (7 * CHUNK, 5000)]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return sparse_image(tmp_path / "image", SIZE, EXTENTS)


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    """The file behind the device, full of other content."""
    return sparse_image(tmp_path / "backing", SIZE, [(0, SIZE)], seed=2)


@pytest.fixture
def device(backing: Path) -> Iterator[Path]:
    with loop_device(backing, "--direct-io=off") as path:
        yield path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def sink_at(
    device: Path, state: Path, size: int = SIZE, *, attached: Attached = lambda _: None, **options: Any
) -> Sink:
    return open_sink(device, size, state_dir=state, attached=attached, **options)


def transfer(image: Path, device: Path, state: Path, **options: Any) -> int:
    with open_source(image) as source, sink_at(device, state, source.size, **options) as sink:
        sent = send(source, sink, base_of(sink.index(), source.chunks))
        sink.commit()
    return sent.data
