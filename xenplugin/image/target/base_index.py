"""What is said about a base: the items of Sink.index(), and how neighbours are joined.

Strategy: leaves per chunk, runs for everything of which there is much. Joining holds an item back only until the
next one is known, and never a long one, so that the far side hears early. A chunk is looked up in the states after
it was read: what put() may have touched by then is reported as unknown.
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
from xenplugin.image.target.chunk_states import ChunkStates, Closed


@dataclass(frozen=True)
class IndexLeaves:
    """The base has these leaves (32 bytes per block, concatenated) in chunk `first`."""

    first: int
    leaves: bytes


@dataclass(frozen=True)
class IndexZeros:
    """The base is zero in `count` chunks from chunk `first` on."""

    first: int
    count: int


@dataclass(frozen=True)
class IndexNone:
    """Nothing is known of `count` chunks from chunk `first` on (or they were overwritten meanwhile)."""

    first: int
    count: int


IndexItem = IndexLeaves | IndexZeros | IndexNone


def joined(items: Iterable[IndexItem]) -> Iterator[IndexItem]:
    """The same items, short neighbouring runs of one kind made one."""
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
    """What is known of the base of `target`, every chunk once, in order; ends early if it is closed.

    Raises ImageError.
    """
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
                for first, count, gone in states.split_started(run.first, run.count):
                    yield IndexNone(first, count) if gone else IndexZeros(first, count)
            else:
                for index in range(run.first, run.first + run.count):
                    yield _item(target, states, index, here, buffer)
    except Closed:
        return


def _item(target: Target, states: ChunkStates, index: int, here: bool, buffer: Buffer) -> IndexItem:
    nothing = IndexNone(index, 1)
    with states.working():
        if states.started(index):
            return nothing
        try:
            length = target.read_base(index, here, buffer)
        except (OSError, ImageError):  # a base that cannot be read is no base
            return nothing
    mask = nonzero_blocks(buffer, length)
    found = leaves(buffer.view, length, mask) if mask else b""
    if states.started(index):
        return nothing
    if mask:
        return IndexLeaves(index, found)
    if here:
        states.found_zero(index)
    return IndexZeros(index, 1)
