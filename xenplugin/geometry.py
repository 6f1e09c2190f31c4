"""How an image is divided into chunks and blocks; the same on every host (docs/wire-format.md, section 2).

An image is a sequence of chunks of CHUNK bytes, each a sequence of blocks of BLOCK bytes; the last chunk and its
last block may be short. A chunk is sent as one frame, a block is the unit of the difference and of the digest, a
page is the unit in which the sink leaves holes.
"""

from __future__ import annotations

PAGE = 4 << 10
BLOCK = 64 << 10
CHUNK = 1 << 20
BLOCKS_PER_CHUNK = CHUNK // BLOCK
#: Chunks (1 GiB) whose digests are combined into one, so that state does not grow with the image.
CHUNKS_PER_GROUP = 1024
#: Most bytes of an image (1 PiB): the digests of its groups of zeros are hashed in a moment, and offsets stay far
#: below 8 EiB, where signed ones overflow.
MAX_IMAGE = 1 << 50


def chunk_count(size: int) -> int:
    """Return the number of chunks in an image of `size` bytes."""
    return -(-size // CHUNK)


def chunk_length(size: int, index: int) -> int:
    """Return the bytes in chunk `index` of an image of `size` bytes: CHUNK, or fewer in the last one."""
    return min(CHUNK, size - index * CHUNK)


def block_count(length: int) -> int:
    """Return the number of blocks in a chunk of `length` bytes."""
    return -(-length // BLOCK)
