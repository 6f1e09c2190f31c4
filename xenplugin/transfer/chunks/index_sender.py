"""Sends the source the index of the target's old content, as it is computed.

It runs at most INDEX_AHEAD chunks ahead of what has arrived, so that the source need not keep more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from xenplugin.geometry import BLOCK, block_count, chunk_length
from xenplugin.image.index.digest import ZERO_LEAF
from xenplugin.image.target.base_index import IndexLeaves, IndexZeros
from xenplugin.image.target.sink import Sink
from xenplugin.transfer.chunks.remote_index import INDEX_AHEAD
from xenplugin.wire.frames import INDEX_CHUNKS, LEAF, Index, IndexRun


class IndexSender:
    """Sends the index of the old content of `sink` through `send`."""

    def __init__(self, sink: Sink, send: Callable[[Index | IndexRun], None]) -> None:
        self._sink = sink
        self._send = send
        self._highest = 0
        self._closed = False
        self._moved = threading.Condition()

    def run(self) -> None:
        """Send all of the index, unless closed before. Raises OSError (from `send`), XenpluginError."""
        batch: list[tuple[int, bytes]] = []
        first = 0
        for item in self._sink.index():
            if isinstance(item, IndexLeaves):
                first = first if batch else item.first
                batch.append(without_zeros(item.leaves, chunk_length(self._sink.size, item.first)))
                if len(batch) < INDEX_CHUNKS:
                    continue
            if batch:
                self._send_paced(Index(first, tuple(batch)))
                batch = []
            if not isinstance(item, IndexLeaves):
                self._send_paced(IndexRun(item.first, item.count, isinstance(item, IndexZeros)))
            if self._closed:
                return
        if batch:
            self._send_paced(Index(first, tuple(batch)))

    def reached(self, stop: int) -> None:
        """Note that chunks up to `stop` have arrived."""
        if stop > self._highest:
            with self._moved:
                self._highest = max(self._highest, stop)
                self._moved.notify_all()

    def close(self) -> None:
        """Send nothing more; from any thread."""
        with self._moved:
            self._closed = True
            self._moved.notify_all()

    def _send_paced(self, frame: Index | IndexRun) -> None:
        with self._moved:
            self._moved.wait_for(lambda: frame.first < self._highest + INDEX_AHEAD or self._closed)
        if not self._closed:
            self._send(frame)


def without_zeros(leaves: bytes, length: int) -> tuple[int, bytes]:
    """Return (zero map, the other leaves); a short last block is never called zero."""
    zero_map, others = 0, []
    for block in range(block_count(length)):
        leaf = leaves[block * LEAF : (block + 1) * LEAF]
        if leaf == ZERO_LEAF and length - block * BLOCK >= BLOCK:
            zero_map |= 1 << block
        else:
            others.append(leaf)
    return zero_map, b"".join(others)
