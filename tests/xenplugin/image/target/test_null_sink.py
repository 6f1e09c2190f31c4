"""The sink of `xenplugin verify`, which keeps nothing."""

from __future__ import annotations

import pytest

from tests.helpers.image_kit import (
    digest_of,
    packed,
)
from xenplugin.errors import ImageError
from xenplugin.geometry import BLOCK, CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import chunk_digest, leaves
from xenplugin.image.target.chunk_update import ChunkUpdate
from xenplugin.image.target.null_sink import NullSink


def test_the_null_sink_checks_digests() -> None:
    sink = NullSink(2 * CHUNK + 100)
    content = bytes(3 * BLOCK) + b"x" * BLOCK + bytes(CHUNK - 4 * BLOCK)
    good = chunk_digest(leaves(memoryview(content), CHUNK))
    sink.put(ChunkUpdate(0, 0b1000, 0, packed(content, 0b1000), good), Buffer(CHUNK))
    with pytest.raises(ImageError, match="does not match its digest"):
        sink.put(ChunkUpdate(1, 0b0100, 0, packed(content, 0b1000), good), Buffer(CHUNK))
    sink.put(ChunkUpdate(2, 1, 0, memoryview(b"y" * 100), digest_of(b"y" * 100)), Buffer(CHUNK))
    sink.put_zeros(1, 1)
