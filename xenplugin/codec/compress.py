"""zstd with a level that follows the link, and the opposite.

`Ladder` decides: when the send queue is full the link is the bottleneck and more compression helps; when
senders starve the CPU is, and less helps, down to none. It is pure: observations in, a level out.
`Packer` (one per worker thread) packs a chunk's data blocks at that level; what does not shrink is
stored, and after such a chunk the next is first tried at the cheapest level.
"""

from __future__ import annotations

import threading

import zstandard

from xenplugin.errors import ImageError, PeerError
from xenplugin.wire.frames import Buffer, Codec

STORE = -99  #: "no compression" on the ladder
RUNGS = (STORE, -1, 1, 3, 6, 9)
LEVELS = range(-7, 20)
_START = RUNGS.index(3)
#: A chunk that keeps more than this share of its size is stored: unpacking it would cost more than it saves.
_WORTH = 0.97


class Ladder:
    """The level for the next chunk. Thread-safe. `fixed` (a zstd level or STORE) switches adapting off.

    `observe(fill, starved)` is called for each chunk put into the queue: `fill` is the queue's share
    in use (0..1), `starved` whether a sender found it empty since the last call.
    """

    def __init__(self, fixed: int | None = None, settle: int = 8) -> None:
        self._rung = _START
        self._fixed = fixed
        self._settle = settle
        self._seen = 0
        self._full = 0
        self._empty = 0
        self._lock = threading.Lock()

    @property
    def level(self) -> int:
        return RUNGS[self._rung] if self._fixed is None else self._fixed

    def observe(self, fill: float, starved: bool) -> None:
        with self._lock:
            self._seen += 1
            self._full += fill > 0.75
            self._empty += starved and fill < 0.25
            if self._seen < self._settle:
                return
            if self._full > 0.7 * self._seen and self._rung + 1 < len(RUNGS):
                self._rung += 1
            elif self._empty > 0.7 * self._seen and self._rung:
                self._rung -= 1
            self._seen = self._full = self._empty = 0


class Packer:
    """Packs payloads. Not thread-safe: one per worker."""

    def __init__(self) -> None:
        self._compressors: dict[int, zstandard.ZstdCompressor] = {}
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
        compressor = self._compressors.get(level)
        if compressor is None:
            compressor = self._compressors[level] = zstandard.ZstdCompressor(
                level=level, write_checksum=False, write_content_size=True
            )
        return compressor.compress(payload)


class Unpacker:
    """Unpacks payloads from the network. Not thread-safe: one per receiving thread."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor()

    def unpack(self, codec: Codec, payload: Buffer, length: int) -> Buffer:
        """The payload's `length` bytes. Raises PeerError if it holds another number of bytes (checked
        before anything is allocated), ImageError if zstd cannot read it."""
        if codec is Codec.STORED:
            if len(payload) != length:
                raise PeerError(f"a stored payload of {len(payload)} bytes where {length} were due")
            return payload
        try:
            declared = zstandard.frame_content_size(payload)
            if declared != length:
                raise PeerError(f"a packed payload of {declared} bytes where {length} were due")
            data = self._decompressor.decompress(payload, max_output_size=length)
        except zstandard.ZstdError as exc:
            raise ImageError(f"a chunk cannot be unpacked: {exc}") from None
        if len(data) != length:
            raise PeerError(f"a payload of {len(data)} bytes where {length} were due")
        return data
