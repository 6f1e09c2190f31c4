"""What is said about a base: the items of Sink.index(), and how neighbours are joined.

Strategy: leaves per chunk, runs for everything of which there is much. Joining holds an item back only until the
next one is known, and never a long one, so that the far side hears early.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from xenplugin.geometry import CHUNKS_PER_GROUP


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
