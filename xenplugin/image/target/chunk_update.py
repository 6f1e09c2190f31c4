"""New content for chunks, checked before it touches an image: it comes from the network."""

from __future__ import annotations

from dataclasses import dataclass

from xenplugin.errors import PeerError
from xenplugin.geometry import chunk_count, chunk_length
from xenplugin.image.scan import all_blocks, mapped_bytes

_DIGEST = 32


@dataclass(frozen=True, slots=True)
class ChunkUpdate:
    """New content of chunk `index`; `digest` (32 bytes) is that of the whole chunk.

    The blocks of `data_map` are in `payload`, concatenated. Those of `known_map` are as in the base, or, with
    `in_place`, as they are in the target now. All other blocks are zero.
    """

    index: int
    data_map: int
    known_map: int
    payload: memoryview
    digest: bytes
    in_place: bool = False

    def check(self, size: int) -> int:
        """Return the length (bytes) of the chunk in an image of `size` bytes. Raises PeerError if anything in the
        update does not fit the image or the rest of the update."""
        index, data_map, known_map, payload = self.index, self.data_map, self.known_map, self.payload
        if not 0 <= index < chunk_count(size):
            raise PeerError(f"chunk {index} is not part of an image of {size} bytes")
        length = chunk_length(size, index)
        if data_map & known_map or not 0 <= (data_map | known_map) <= all_blocks(length):
            raise PeerError(f"the block map of chunk {index} is not valid")
        wanted = mapped_bytes(data_map, length)
        if len(payload) != wanted or payload.itemsize != 1 or len(self.digest) != _DIGEST:
            raise PeerError(f"chunk {index} comes with {len(payload)} bytes, but its block map needs {wanted}")
        return length


def check_zeros(size: int, first: int, count: int) -> None:
    """Raise PeerError unless an image of `size` bytes has `count` chunks, at least one, from `first` on."""
    if first < 0 or count < 1 or first + count > chunk_count(size):
        raise PeerError(f"chunks {first}+{count} are not part of an image of {size} bytes")
