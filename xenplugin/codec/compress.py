"""zstd with a level that follows the link, and the opposite.

`Packer` (one per worker thread) packs a chunk's data blocks; what does not shrink is stored, and after
such a chunk the next is first tried at a cheap level. Which level is decided in ladder.py.
"""

from __future__ import annotations

import zstandard

from xenplugin.errors import ImageError, PeerError
from xenplugin.wire.body import Buffer
from xenplugin.wire.frames import Codec

STORE = -99  #: "no compression" on the ladder
LEVELS = range(-7, 20)
#: A chunk that keeps more than this share of its size is stored: unpacking it would cost more than it saves.
_WORTH = 0.97


class Packer:
    """Packs payloads. Not thread-safe: one per worker."""

    def __init__(self) -> None:
        self._level = STORE
        self._compressor = zstandard.ZstdCompressor()
        self._dull = False

    def pack(self, payload: Buffer, level: int) -> tuple[Codec, Buffer]:
        """(codec, packed bytes); the payload itself where packing does not pay."""
        if level == STORE:
            return Codec.STORED, payload
        if self._dull and level > 1:
            self._dull = len(self._compress(payload, 1)) > _WORTH * len(payload)
            if self._dull:
                return Codec.STORED, payload
        packed = self._compress(payload, level)
        self._dull = len(packed) > _WORTH * len(payload)
        return (Codec.STORED, payload) if self._dull else (Codec.ZSTD, packed)

    def _compress(self, payload: Buffer, level: int) -> bytes:
        if level != self._level:  # one at a time: the tables of a high level take megabytes
            self._level = level
            self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
        # Copied: zstandard allocates for the worst case and gives the rest back, which splinters the heap.
        return bytes(memoryview(self._compressor.compress(payload)))


class Unpacker:
    """Unpacks payloads from the network. Not thread-safe: one per receiving thread."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor()

    def unpack(self, codec: Codec, payload: Buffer, length: int) -> Buffer:
        """The payload's `length` bytes. Raises PeerError if it holds another number of bytes (checked
        before anything is allocated) or does not say how many, ImageError if it is not one zstd frame that
        can be read."""
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
