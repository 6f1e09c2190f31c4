"""The index of a target's base: which content it already has, for the source to leave out.

Strategy: leaves for chunks with data, runs for chunks that are zero or unknown. Short neighbouring runs are joined;
a run is held back only until the next item is known, and a long one not at all, so that the far side can start
early. After a chunk is read, its state is looked up: if put() may have written to it by then, it is reported as
unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xenplugin.errors import ImageError
from xenplugin.geometry import CHUNK, CHUNKS_PER_GROUP
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import leaves
from xenplugin.image.scan import nonzero_blocks
from xenplugin.image.target.abstract import Target
from xenplugin.image.target.chunk_states import ChunkStates, TargetClosed


@dataclass(frozen=True)
class IndexLeaves:
    """Chunk `first` of the base has these leaves (32 bytes per block, concatenated)."""

    first: int
    leaves: bytes


@dataclass(frozen=True)
class IndexZeros:
    """`count` chunks of the base from chunk `first` on are zero."""

    first: int
    count: int


@dataclass(frozen=True)
class IndexNone:
    """`count` chunks from chunk `first` on have no base, or may have been overwritten since."""

    first: int
    count: int


IndexItem = IndexLeaves | IndexZeros | IndexNone


def joined(items: Iterable[IndexItem]) -> Iterator[IndexItem]:
    """Yield the same items, with short neighbouring runs of one kind joined."""
    held: IndexZeros | IndexNone | None = None
    for item in items:
        if held is not None:
            if type(item) is type(held) and held.count < CHUNKS_PER_GROUP:
                held = type(held)(held.first, held.count + item.count)
                continue
            yield held
            held = None
        if isinstance(item, IndexLeaves):
            yield item
        else:
            held = item
    if held is not None:
        yield held


def base_items(target: Target, states: ChunkStates) -> Iterator[IndexItem]:
    """Yield the items for all chunks of `target`, in order, until the target is closed. Raises ImageError."""
    buffer = Buffer(CHUNK)
    runs = target.base_runs()
    try:
        while True:
            with states.working():
                found = next(runs, None)
            if found is None:
                return
            run, here = found
            if here is None:
                yield IndexNone(run.first, run.count)
            elif run.hole:
                for first, count, written in states.split_started(run.first, run.count):
                    yield IndexNone(first, count) if written else IndexZeros(first, count)
            else:
                for index in range(run.first, run.first + run.count):
                    yield _item(target, states, index, here, buffer)
    except TargetClosed:
        return


def _item(target: Target, states: ChunkStates, index: int, here: bool, buffer: Buffer) -> IndexItem:
    nothing = IndexNone(index, 1)
    with states.working():
        if states.started(index):
            return nothing
        try:
            length = target.read_base(index, here, buffer)
        except (OSError, ImageError):  # what cannot be read is sent again
            return nothing
    found = described(index, buffer, length)
    if states.started(index):
        return nothing
    if here and isinstance(found, IndexZeros):
        states.found_zero(index)
    return found


def described(index: int, buffer: Buffer, length: int) -> IndexLeaves | IndexZeros:
    """Return the item for chunk `index`, whose `length` bytes are in `buffer`."""
    mask = nonzero_blocks(buffer, length)
    return IndexLeaves(index, leaves(buffer.view, length, mask)) if mask else IndexZeros(index, 1)
