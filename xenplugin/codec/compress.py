"""Compresses payloads by zstd and decompresses them.

`Packer` (one per worker thread) compresses a chunk's data blocks. What does not shrink is stored, and after such a
chunk the next one is first tried at a cheap level. The level is chosen in adaptive_level.py.
"""

from __future__ import annotations

import zstandard

from xenplugin.errors import ImageError, PeerError
from xenplugin.wire.body import Buffer
from xenplugin.wire.frames import Codec

STORE = -99  #: the level that stands for no compression
LEVELS = range(-7, 20)
#: A chunk that keeps more than this share of its size is stored: decompressing it would cost more than it saves.
_WORTH = 0.97


class Packer:
    """Compresses payloads. Not thread-safe: one per worker."""

    def __init__(self) -> None:
        self._level = STORE
        self._compressor = zstandard.ZstdCompressor()
        self._incompressible = False

    def pack(self, payload: Buffer, level: int) -> tuple[Codec, Buffer]:
        """Return (codec, compressed bytes), or the payload itself if compression is not worth it. Raises
        MemoryError."""
        if level == STORE:
            return Codec.STORED, payload
        if self._incompressible and level > 1:
            self._incompressible = len(self._compress(payload, 1)) > _WORTH * len(payload)
            if self._incompressible:
                return Codec.STORED, payload
        packed = self._compress(payload, level)
        self._incompressible = len(packed) > _WORTH * len(payload)
        return (Codec.STORED, payload) if self._incompressible else (Codec.ZSTD, packed)

    def _compress(self, payload: Buffer, level: int) -> bytes:
        if level != self._level:  # only one is kept: the tables of a high level take megabytes
            self._level = level
            self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
        try:
            packed = self._compressor.compress(payload)
        except zstandard.ZstdError as exc:  # every content can be compressed: only memory can be missing
            raise MemoryError(str(exc)) from None
        # Copied: zstandard allocates for the worst case and returns the rest, which fragments the heap.
        return bytes(memoryview(packed))


class Unpacker:
    """Decompresses payloads from the network. Not thread-safe: one per receiving thread."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor()

    def unpack(self, codec: Codec, payload: Buffer, length: int) -> Buffer:
        """Return the payload's `length` bytes. Raises PeerError if its header gives another number of bytes or
        none, which is checked before anything is allocated; ImageError if it is not a single intact zstd frame."""
        if codec is Codec.STORED:
            if len(payload) != length:
                raise PeerError(f"a stored payload of {len(payload)} bytes where {length} were due")
            return payload
        try:
            declared = zstandard.frame_content_size(payload)
            if declared != length:
                raise PeerError(f"a packed payload of {declared} bytes where {length} were due")
            data = self._decompressor.decompress(payload, max_output_size=length, allow_extra_data=False)
        except zstandard.ZstdError as exc:
            raise ImageError(f"a chunk cannot be unpacked: {exc}") from None
        if len(data) != length:
            raise PeerError(f"a payload of {len(data)} bytes where {length} were due")
        return data
