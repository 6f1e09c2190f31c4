"""Images with damaged headers end in words, and never in a traceback or a hang."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.images import noise
from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.formats.create import create
from xenplugin.image.formats.kinds import KEPT, Format
from xenplugin.image.formats.node import open_node
from xenplugin.image.formats.qemu import Link
from xenplugin.image.source.formatted import open_image

SIZE = 4 * CHUNK


def damages(data: bytes) -> Iterator[bytes]:
    """The image cut in its header, behind it and in its data; with zeros and ones behind its magic; and with some
    bytes of the first 1 KiB changed."""
    yield from (data[:40], data[:700], data[: len(data) // 2])
    yield from (data[:8] + filler * 504 + data[512:] for filler in (b"\0", b"\xff"))
    draw = random.Random(1)
    for _ in range(4):
        changed = bytearray(data)
        for _ in range(8):
            changed[draw.randrange(8, 1024)] = draw.randrange(256)
        yield bytes(changed)


@pytest.mark.parametrize("format", KEPT)
def test_a_damaged_header_ends_in_words(tmp_path: Path, format: str) -> None:
    path = tmp_path / "image"
    create(str(path), Format(format), SIZE)
    node = open_node([Link(str(path), format)], writable=True)
    node.export.write(memoryview(noise(1, CHUNK)), CHUNK)
    node.close()
    whole, buffer, refused = path.read_bytes(), Buffer(CHUNK), 0
    for damaged in damages(whole):
        path.write_bytes(damaged)
        try:
            with open_image(str(path), format) as source:
                for run in source.runs(0, min(source.chunks, 16)):
                    for index in () if run.hole else range(run.first, run.first + run.count):
                        source.read(index, buffer)
        except (ImageError, RefusedError) as error:
            refused += 1
            assert str(path) in error.message and "\n" not in error.message
            assert "blockdev" not in error.message and "json:" not in error.message
    assert refused >= 3
