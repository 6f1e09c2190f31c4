"""Zero tests and block maps."""

from __future__ import annotations

import pytest

from xenplugin.geometry import BLOCK, CHUNK, PAGE
from xenplugin.image.buffers import Buffer
from xenplugin.image.chunkset import ChunkSet
from xenplugin.image.scan import bit_runs, byte_runs, data_extents, gaps, mapped_bytes, nonzero_blocks


def test_a_buffer_is_page_aligned_zeroed_and_knows_its_end() -> None:
    import ctypes

    buffer = Buffer(CHUNK)
    assert ctypes.addressof(ctypes.c_char.from_buffer(buffer.view)) % PAGE == 0
    assert len(buffer.view) == CHUNK and nonzero_blocks(buffer, CHUNK) == 0
    buffer.view[-1] = 7
    assert nonzero_blocks(buffer, CHUNK) == 1 << 15


@pytest.mark.parametrize("at", [0, 1, BLOCK - 1, BLOCK, 5 * BLOCK + 17, CHUNK - 1])
def test_one_byte_makes_its_block_nonzero(at: int) -> None:
    buffer = Buffer(CHUNK)
    buffer.view[at] = 1
    assert nonzero_blocks(buffer, CHUNK) == 1 << at // BLOCK


def test_bytes_beyond_the_length_do_not_count() -> None:
    buffer = Buffer(CHUNK)
    buffer.view[2 * BLOCK + 100] = 1
    assert nonzero_blocks(buffer, 2 * BLOCK + 100) == 0
    assert nonzero_blocks(buffer, 2 * BLOCK + 101) == 0b100


def test_pages_of_zeros_split_the_data() -> None:
    content = bytearray(b"x" * 6 * PAGE)
    content[PAGE : 2 * PAGE] = bytes(PAGE)
    content[4 * PAGE :] = bytes(2 * PAGE)
    view = memoryview(content)
    assert data_extents(view, 0, 6 * PAGE) == [(0, PAGE), (2 * PAGE, 4 * PAGE)]
    assert data_extents(view, 4 * PAGE, 6 * PAGE) == []
    assert data_extents(view, 3 * PAGE, 3 * PAGE) == []


def test_a_page_that_only_begins_with_zeros_is_data() -> None:
    content = bytearray(PAGE)
    content[-1] = 1
    assert data_extents(memoryview(content), 0, PAGE) == [(0, PAGE)]


def test_a_short_last_page() -> None:
    content = bytearray(b"x" * PAGE + bytes(100))
    assert data_extents(memoryview(content), 0, len(content)) == [(0, PAGE)]
    content[-1] = 1
    assert data_extents(memoryview(content), 0, len(content)) == [(0, len(content))]
    assert data_extents(memoryview(bytes(100)), 0, 100) == []


def test_maps_become_runs_of_bytes() -> None:
    assert list(bit_runs(0b1110011)) == [(0, 2), (4, 7)]
    assert byte_runs(0b101, 2 * BLOCK + 5) == ((0, BLOCK), (2 * BLOCK, 2 * BLOCK + 5))
    assert mapped_bytes(0xFFFF, CHUNK) == CHUNK
    assert list(gaps([(2, 3), (3, 5), (8, 10)], 10)) == [(0, 2), (5, 8)]


def test_a_huge_set_of_chunks_is_cheap() -> None:
    chunks = ChunkSet()
    chunks.add(0, 1 << 30)
    assert len(chunks) == 1 << 30 and chunks.add(5, 1) == 0
    chunks.discard(3 << 10, 1)
    assert list(chunks.split(0, 1 << 30)) == [
        (0, 3 << 10, True),
        (3 << 10, 1, False),
        ((3 << 10) + 1, (1 << 30) - (3 << 10) - 1, True),
    ]


def test_a_set_filled_one_by_one_is_as_cheap() -> None:
    chunks = ChunkSet()
    for index in range(4 * 1024 - 1, -1, -1):
        chunks.add(index)
    assert list(chunks.runs()) == [(0, 4096)]
    (node,) = chunks._root.parts.values()
    assert not isinstance(node, int) and node.whole == 0b1111 and not node.parts
