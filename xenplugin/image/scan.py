"""Zero tests for blocks and pages, and bit maps of the blocks of a chunk: bit i stands for block i.

Strategy, as measured on this project's machine:
- Blocks of a Buffer are tested with `bytearray.startswith(64 KiB of zeros)`, which holds the GIL for 1 us a block.
  memcmp through ctypes is no faster; with CDLL it also releases the GIL 16 times a chunk, which costs far more than
  it saves as soon as another thread wants the GIL.
- Pages of a memoryview are tested by their first words, with one strided slice for all pages. Almost no page of
  real data begins with eight zero bytes, so few pages need the full test, a copy of 4 KiB and a memcmp.
  `memoryview ==` compares item by item and is never used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from xenplugin.geometry import BLOCK, CHUNK, PAGE, block_count
from xenplugin.image.buffers import Buffer

ZEROS = bytes(CHUNK)
_ZERO_BLOCK = bytes(BLOCK)
_ZERO_PAGE = bytes(PAGE)
_WORD = 8


def nonzero_blocks(buffer: Buffer, length: int) -> int:
    """Return the map of the blocks that are not all zero, in the first `length` bytes (at most CHUNK)."""
    test = buffer.store.startswith
    at = buffer.base
    full, rest = divmod(length, BLOCK)
    mask = 0
    zeros = _ZERO_BLOCK
    for bit in range(full):
        if not test(zeros, at):
            mask |= 1 << bit
        at += BLOCK
    if rest and not test(_ZERO_BLOCK[:rest], at):
        mask |= 1 << full
    return mask


def data_extents(view: memoryview, start: int, stop: int) -> list[tuple[int, int]]:
    """Return runs (start, stop) of pages that are not all zero, within bytes `start` to `stop` of `view`.

    Pages are counted from `start`; the last one may be short. Runs are in order and never touch.
    """
    whole = (stop - start) // PAGE * PAGE
    part = view[start : start + whole].cast("B")
    heads = part.cast("Q")[:: PAGE // _WORD].tolist() if whole else []
    runs: list[tuple[int, int]] = []
    begin = start
    if 0 in heads:
        page = -1
        try:
            while True:
                page = heads.index(0, page + 1)
                at = start + page * PAGE
                if bytes(view[at : at + PAGE]) == _ZERO_PAGE:
                    if begin < at:
                        runs.append((begin, at))
                    begin = at + PAGE
        except ValueError:  # no further page begins with zeros
            pass
    tail = start + whole
    if tail < stop and bytes(view[tail:stop]) == _ZERO_PAGE[: stop - tail]:
        stop = tail
    if begin < stop:
        runs.append((begin, stop))
    return runs


def bit_runs(mask: int) -> Iterator[tuple[int, int]]:
    """Yield runs (first, stop) of set bits of `mask`, in order."""
    at = 0
    while mask:
        skip = (mask & -mask).bit_length() - 1
        mask >>= skip
        at += skip
        count = (~mask & (mask + 1)).bit_length() - 1
        yield at, at + count
        mask >>= count
        at += count


@lru_cache(maxsize=4096)
def byte_runs(block_map: int, length: int) -> tuple[tuple[int, int], ...]:
    """Return the blocks of `block_map` as runs (start, stop) of bytes in a chunk of `length` bytes."""
    return tuple((first * BLOCK, min(stop * BLOCK, length)) for first, stop in bit_runs(block_map))


def gaps(ranges: Iterable[tuple[int, int]], length: int) -> Iterator[tuple[int, int]]:
    """Yield what `ranges` (start, stop), in order, do not cover of 0 to `length`."""
    at = 0
    for start, stop in ranges:
        if at < start:
            yield at, start
        at = stop
    if at < length:
        yield at, length


def all_blocks(length: int) -> int:
    """Return the map of all blocks of a chunk of `length` bytes."""
    return (1 << block_count(length)) - 1


def mapped_bytes(block_map: int, length: int) -> int:
    """Return the number of bytes that the blocks of `block_map` have in a chunk of `length` bytes."""
    return sum(stop - start for start, stop in byte_runs(block_map, length))
