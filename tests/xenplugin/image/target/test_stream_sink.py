"""An image that goes to standard output."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import BLOCK, CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import chunk_digest, leaves
from xenplugin.image.standard_streams import StandardOutput
from xenplugin.image.target.chunk_update import ChunkUpdate
from xenplugin.image.target.stream_sink import StreamSink

SIZE = 3 * CHUNK + 100


def update(index: int, content: bytes, data_map: int, digest: bytes | None = None) -> ChunkUpdate:
    """A chunk with `content`, of which the blocks in `data_map` are sent."""
    blocks = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
    payload = b"".join(block for number, block in enumerate(blocks) if data_map >> number & 1)
    found = digest or chunk_digest(bytes(leaves(memoryview(content), len(content))))
    return ChunkUpdate(index, data_map, 0, memoryview(payload), found, in_place=False)


@pytest.mark.parametrize("flags", [0, os.O_APPEND])
def test_chunks_are_written_in_order(tmp_path: Path, flags: int) -> None:
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT | flags)
    sink = StreamSink(SIZE, StandardOutput(fd))
    scratch = Buffer(CHUNK)
    first = b"a" * BLOCK + bytes(2 * BLOCK) + b"b" * BLOCK + bytes(CHUNK - 4 * BLOCK)
    sink.put(update(0, first, 0b1001), scratch)
    sink.put_zeros(0, 0 + 1)  # once more, which changes nothing
    sink.put_zeros(1, 2)
    sink.put(update(3, b"c" * 100, 1), scratch)
    sink.commit()
    os.close(fd)
    assert (tmp_path / "out").read_bytes() == first + bytes(2 * CHUNK) + b"c" * 100


def test_what_is_not_in_order_or_wrong_is_not_written(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    sink = StreamSink(SIZE, StandardOutput(fd))
    scratch = Buffer(CHUNK)
    with pytest.raises(RefusedError, match="chunk 1 of the image comes before chunk 0"):
        sink.put(update(1, b"a" * CHUNK, 0xFFFF), scratch)
    with pytest.raises(RefusedError, match="before"):
        sink.put_zeros(2, 2)
    with pytest.raises(ImageError, match="does not match"):
        sink.put(update(0, b"a" * CHUNK, 0xFFFF, digest=bytes(32)), scratch)
    os.close(fd)
    assert (tmp_path / "out").read_bytes() == b""
