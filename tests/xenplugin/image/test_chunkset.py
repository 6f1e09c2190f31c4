"""Scanning, chunk sets and the digest tree, compared with the simplest implementation."""

from __future__ import annotations

import hashlib
import itertools
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplugin.errors import ImageError
from xenplugin.geometry import BLOCK, CHUNK, CHUNKS_PER_GROUP, PAGE, chunk_count, chunk_length
from xenplugin.image.buffers import Buffer
from xenplugin.image.chunkset import ChunkSet
from xenplugin.image.index.digest import ImageDigest, leaves, zero_chunk
from xenplugin.image.scan import data_extents, nonzero_blocks

BUFFER = Buffer(CHUNK)


@given(
    length=st.integers(1, CHUNK),
    marks=st.lists(st.integers(0, CHUNK - 1), max_size=30),
    start=st.integers(0, CHUNK),
)
@settings(max_examples=60)
def test_scanning_finds_exactly_the_nonzero_blocks_and_pages(length: int, marks: list[int], start: int) -> None:
    BUFFER.view[:] = bytes(CHUNK)
    for at in marks:
        BUFFER.view[at] = 1
    content = bytes(BUFFER.view[:length])
    blocks = [content[at : at + BLOCK] for at in range(0, length, BLOCK)]
    mask = nonzero_blocks(BUFFER, length)
    assert mask == sum(1 << i for i, block in enumerate(blocks) if any(block))
    assert leaves(BUFFER.view, length, mask) == leaves(BUFFER.view, length)
    assert leaves(BUFFER.view, length) == b"".join(hashlib.sha256(block).digest() for block in blocks)

    start = min(start, length)
    found = data_extents(BUFFER.view, start, length)
    pages = [(at, min(at + PAGE, length)) for at in range(start, length, PAGE)]
    marked = {page for page in pages if any(content[page[0] : page[1]])}
    assert {page for page in pages if any(a <= page[0] and page[1] <= b for a, b in found)} == marked
    assert all(b < c for (_, b), (c, _) in itertools.pairwise(found))


RANGE = st.tuples(st.integers(0, 5000), st.integers(0, 3000))


@given(
    steps=st.lists(st.tuples(st.booleans(), RANGE), max_size=25),
    window=RANGE,
    base=st.sampled_from([0, 1024 * 1024 - 2500]),  # where one TiB ends, and another begins
)
@settings(max_examples=80)
def test_a_chunk_set_is_a_set(
    steps: list[tuple[bool, tuple[int, int]]], window: tuple[int, int], base: int
) -> None:
    chunks, plain = ChunkSet(), set[int]()
    window = base + window[0], window[1]
    for add, (first, count) in steps:
        first += base
        span = range(first, first + count)
        if add:
            assert chunks.add(first, count) == len(set(span) - plain)
            plain |= set(span)
        else:
            chunks.discard(first, count)
            plain -= set(span)
        assert len(chunks) == len(plain)
    runs = list(chunks.runs())
    assert [i for first, count in runs for i in range(first, first + count)] == sorted(plain)
    assert all(a + n < b for (a, n), (b, _) in itertools.pairwise(runs))
    parts = list(chunks.split(*window))
    assert [i for a, n, _ in parts for i in range(a, a + n)] == list(range(window[0], sum(window)))
    assert all((i in plain) == there == (i in chunks) for a, n, there in parts for i in range(a, a + n))
    assert chunks.covers(*window) == (set(range(window[0], sum(window))) <= plain)


def test_a_set_that_was_whole_is_one_again() -> None:
    chunks, tib = ChunkSet(), 1 << 20
    assert chunks.add(0, 8 * tib) == 8 * tib and not chunks._root.parts
    for at in (0, 3 * tib + 5, 8 * tib - 1):
        chunks.discard(at)
        assert at not in chunks and len(chunks) == 8 * tib - 1 and len(chunks._root.parts) == 1
        assert chunks.add(at) == 1 and not chunks._root.parts
    chunks.discard(10, 7 * tib)
    assert list(chunks.runs()) == [(0, 10), (7 * tib + 10, tib - 10)] and len(chunks) == tib
    chunks.discard(0, 1 << 30)
    assert not chunks and not chunks._root.parts and list(chunks.runs()) == []


def plain_root(size: int, digests: list[bytes]) -> bytes:
    """Compute the digest tree directly from its specification."""
    groups = [
        hashlib.sha256(b"".join(digests[at : at + CHUNKS_PER_GROUP])).digest()
        for at in range(0, len(digests), CHUNKS_PER_GROUP)
    ]
    return hashlib.sha256(b"xenplugin image 1\0" + struct.pack(">Q", size) + b"".join(groups)).digest()


@given(
    size=st.integers(0, 5000 * CHUNK) | st.sampled_from([n * CHUNKS_PER_GROUP * CHUNK for n in (1, 2, 4)]),
    data=st.lists(st.integers(0, 5000), max_size=40),
    dense=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(max_examples=40)
def test_the_tree_does_not_depend_on_the_order(size: int, data: list[int], dense: bool, seed: int) -> None:
    count = chunk_count(size)
    digests = [zero_chunk(chunk_length(size, i)) for i in range(count)]
    marked = {i for i in data if i < count} | (set(range(min(1100, count))) if dense else set())
    for i in marked:
        digests[i] = hashlib.sha256(b"%d" % i).digest()
    steps: list[tuple[int, int]] = [(i, 0) for i in marked]
    at = 0
    for i in [*sorted(marked), count]:
        if at < i:
            steps.append((at, i - at))
        at = i + 1
    random.Random(seed).shuffle(steps)
    tree = ImageDigest(size)
    for first, zeros in steps:
        assert tree.missing() > 0
        with pytest.raises(ImageError):
            tree.root()
        for again in (False, True):  # whatever comes twice changes nothing
            if zeros:
                tree.add_zeros(first, zeros)
            else:
                assert tree.add(first, digests[first]) is not again
    assert tree.complete and tree.missing() == 0
    assert tree.root() == plain_root(size, digests)
