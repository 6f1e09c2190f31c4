"""Chunks from the network are checked before they touch an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.image_kit import (
    packed,
    sink_for,
)
from xenplugin.errors import PeerError
from xenplugin.geometry import BLOCK, CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.target.chunk_update import ChunkUpdate
from xenplugin.image.target.null_sink import NullSink


def test_a_block_cannot_be_data_and_known() -> None:
    content = b"x" * CHUNK
    assert ChunkUpdate(0, 0x00FF, 0xFF00, packed(content, 0x00FF), b"0" * 32).check(CHUNK) == CHUNK
    with pytest.raises(PeerError, match="block map"):
        ChunkUpdate(0, 0x00FF, 0xFF80, packed(content, 0x00FF), b"0" * 32).check(CHUNK)


@pytest.mark.parametrize(
    ("index", "data", "known", "length"),
    [
        (-1, 1, 0, BLOCK),
        (3, 1, 0, BLOCK),
        (0, 1 << 16, 0, BLOCK),
        (0, -1, 0, CHUNK),
        (0, 3, 1, 2 * BLOCK),
        (0, 1, 0, BLOCK - 1),
        (0, 1, 0, BLOCK + 1),
        (0, 0, 0, 1),
        (2, 2, 0, BLOCK),  # the last chunk has 100 bytes
        (2, 1, 0, BLOCK),
        (0, 0, 1, 0),  # no base
    ],
)
def test_garbage_from_the_network_is_refused(target: Path, index: int, data: int, known: int, length: int) -> None:
    size = 2 * CHUNK + 100
    update = ChunkUpdate(index, data, known, memoryview(bytes(length)), b"0" * 32)
    with sink_for(target, size) as sink:
        for each in (sink, NullSink(size)):
            with pytest.raises(PeerError):
                each.put(update, Buffer(CHUNK))
            for first, count in ((-1, 2), (0, 4), (3, 1), (0, 0)):
                with pytest.raises(PeerError):
                    each.put_zeros(first, count)
        assert sink.missing() == 3
        sink.discard()
