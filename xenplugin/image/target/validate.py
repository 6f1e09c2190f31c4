"""What came from the network, judged before it touches an image: chunk numbers, block maps, lengths."""

from __future__ import annotations

from xenplugin.errors import PeerError
from xenplugin.geometry import chunk_count, chunk_length
from xenplugin.image.scan import all_blocks, mapped_bytes

_DIGEST = 32


def check_put(size: int, index: int, data_map: int, known_map: int, payload: memoryview, digest: bytes) -> int:
    """The length (bytes) of chunk `index` if the maps and the payload fit it. Raises PeerError."""
    if not 0 <= index < chunk_count(size):
        raise PeerError(f"chunk {index} is not part of an image of {size} bytes")
    length = chunk_length(size, index)
    if data_map & known_map or not 0 <= (data_map | known_map) <= all_blocks(length):
        raise PeerError(f"chunk {index} has an impossible block map")
    if len(payload) != mapped_bytes(data_map, length) or payload.itemsize != 1 or len(digest) != _DIGEST:
        raise PeerError(f"chunk {index} has {len(payload)} bytes, which its block map does not")
    return length


def check_zeros(size: int, first: int, count: int) -> None:
    """Raise PeerError unless the image has `count` chunks, at least one, from `first` on."""
    if first < 0 or count < 1 or first + count > chunk_count(size):
        raise PeerError(f"chunks {first}+{count} are not part of an image of {size} bytes")
