"""A sink that keeps nothing: verifies that what comes is what its digests say (`xenplugin verify`)."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from xenplugin.errors import ImageError, PeerError
from xenplugin.geometry import BLOCK, chunk_count
from xenplugin.image.buffers import Buffer
from xenplugin.image.chunkset import ChunkSet
from xenplugin.image.index.digest import LEAF, chunk_digest, leaves
from xenplugin.image.scan import byte_runs
from xenplugin.image.target.base_index import IndexItem, IndexNone
from xenplugin.image.target.validate import check_put, check_zeros


class NullSink:
    """Has the methods of Sink; no base, no file, nothing to resume."""

    resumed = 0

    def __init__(self, size: int) -> None:
        self.size = size
        self.path = "the stream"
        self._chunks = chunk_count(size)
        self._done = ChunkSet()
        self._lock = threading.Lock()

    def __enter__(self) -> NullSink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def index(self) -> Iterator[IndexItem]:
        """Nothing is known of any chunk."""
        if self._chunks:
            yield IndexNone(0, self._chunks)

    def put(
        self,
        index: int,
        data_map: int,
        known_map: int,
        payload: memoryview,
        digest: bytes,
        scratch: Buffer,
        *,
        in_place: bool = False,
    ) -> None:
        """Verify chunk `index`. Raises PeerError, and ImageError if it is not what `digest` says."""
        length = check_put(self.size, index, data_map, known_map, payload, digest)
        if known_map:
            raise PeerError(f"chunk {index} refers to a base that there is not")
        # The leaves of the data come in the payload's order; those of zero blocks are constants.
        found = bytearray(leaves(payload[:0], length, 0))
        at = 0
        for start, stop in byte_runs(data_map, length):
            part = leaves(payload[at : at + stop - start], stop - start)
            begin = start // BLOCK * LEAF
            found[begin : begin + len(part)] = part
            at += stop - start
        if chunk_digest(bytes(found)) != digest:
            raise ImageError(f"chunk {index} is not what its digest says")
        self._add(index, 1)

    def put_zeros(self, first: int, count: int) -> None:
        """Count `count` zero chunks from `first` on. Raises PeerError."""
        check_zeros(self.size, first, count)
        self._add(first, count)

    def _add(self, first: int, count: int) -> None:
        with self._lock:
            self._done.add(first, count)

    def missing(self) -> int:
        """How many chunks were not put yet."""
        return self._chunks - len(self._done)

    def checkpoint(self) -> None:
        """Nothing to make durable."""

    def commit(self) -> None:
        """Raises ImageError if chunks are missing."""
        if self.missing():
            raise ImageError(f"the image is not complete: {self.missing()} chunks are missing")

    def suspend(self) -> None:
        """Nothing to keep."""

    def discard(self) -> None:
        """Nothing to remove."""

    def close(self) -> None:
        """Nothing to close."""
