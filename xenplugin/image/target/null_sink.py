"""Check an image that arrives, and keep nothing of it (`xenplugin verify`)."""

from __future__ import annotations

from xenplugin.errors import ImageError, PeerError
from xenplugin.geometry import BLOCK
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import LEAF, chunk_digest, leaves
from xenplugin.image.scan import byte_runs
from xenplugin.image.target.chunk_update import ChunkUpdate, check_zeros


class NullSink:
    """A sink for an image of `size` bytes that checks each chunk against its digest. Any thread may use it."""

    def __init__(self, size: int) -> None:
        self.size = size

    def put(self, update: ChunkUpdate, scratch: Buffer) -> None:
        """Check a chunk. Raises PeerError, and ImageError if its content does not match its digest."""
        length = update.check(self.size)
        if update.known_map:
            raise PeerError(f"chunk {update.index} refers to a base, and there is none")
        # The payload has the data blocks in order; the leaves of the zero blocks between them are constants.
        found = bytearray(leaves(update.payload[:0], length, 0))
        at = 0
        for start, stop in byte_runs(update.data_map, length):
            part = leaves(update.payload[at : at + stop - start], stop - start)
            begin = start // BLOCK * LEAF
            found[begin : begin + len(part)] = part
            at += stop - start
        if chunk_digest(bytes(found)) != update.digest:
            raise ImageError(f"the content of chunk {update.index} does not match its digest")

    def put_zeros(self, first: int, count: int) -> None:
        """Accept `count` zero chunks from `first` on. Raises PeerError."""
        check_zeros(self.size, first, count)

    def commit(self) -> None:
        """Do nothing: there is nothing to make durable."""

    def discard(self) -> None:
        """Do nothing: there is nothing to remove."""
