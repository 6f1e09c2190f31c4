"""How an image is divided; the same on every host (docs/wire-format.md, section 2).

An image of SIZE bytes is a row of chunks of CHUNK bytes, each a row of blocks of BLOCK bytes; the last
chunk and its last block may be short. A chunk travels as one frame, a block is the unit of the
difference and of the digest, a page is the unit in which the sink leaves holes.
"""

from __future__ import annotations

PAGE = 4 << 10
BLOCK = 64 << 10
CHUNK = 1 << 20
BLOCKS_PER_CHUNK = CHUNK // BLOCK
#: Chunks whose digests are folded into one (1 GiB), so that state does not grow with the image.
CHUNKS_PER_GROUP = 1024
#: 8 EiB would overflow signed offsets; 2**60 leaves room and rejects nonsense from the network.
MAX_IMAGE = 1 << 60


def chunk_count(size: int) -> int:
    """Number of chunks in an image of `size` bytes."""
    return -(-size // CHUNK)


def chunk_length(size: int, index: int) -> int:
    """Bytes in chunk `index` of an image of `size` bytes (CHUNK, but for a short last one)."""
    return min(CHUNK, size - index * CHUNK)


def block_count(length: int) -> int:
    """Number of blocks in a chunk of `length` bytes."""
    return -(-length // BLOCK)
