"""Frames of the sealed stream and their plaintexts (docs/wire-format.md, section 5). Pure.

Decoding is strict: a body is exactly what the format says or PeerError is raised. Ranges that depend on
the image's size are checked by `check_range`, once the size is known.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from xenplugin.errors import PeerError
from xenplugin.geometry import BLOCKS_PER_CHUNK, CHUNK, MAX_IMAGE, block_count, chunk_count, chunk_length

Buffer: TypeAlias = bytes | bytearray | memoryview

LEAF = 32
MAX_TEXT = 4096
MAX_WELCOME = 16384
#: Most chunks in an INDEX frame, so that the frame stays near 16 KiB.
INDEX_CHUNKS = 31


class Type(IntEnum):
    IMAGE = 1
    CHUNK = 2
    ZEROS = 3
    END = 4
    ERROR = 5
    PING = 6
    WELCOME = 16
    INDEX = 17
    INDEX_RUN = 18
    ACK = 19
    DONE = 20


class Codec(IntEnum):
    STORED = 0
    ZSTD = 1


@dataclass(frozen=True)
class Image:
    size: int
    type = Type.IMAGE


@dataclass(frozen=True)
class Chunk:
    """One whole chunk; `payload` holds its data blocks, joined, packed by `codec`."""

    index: int
    codec: Codec
    data_map: int
    known_map: int
    digest: bytes
    payload: Buffer
    type = Type.CHUNK

    def payload_length(self, image_size: int) -> int:
        """Bytes of the unpacked payload: the data blocks, of which the image's last may be short."""
        length = chunk_length(image_size, self.index)
        blocks = block_count(length)
        total = self.data_map.bit_count() * (CHUNK // BLOCKS_PER_CHUNK)
        if self.data_map >> (blocks - 1) & 1:
            total -= blocks * (CHUNK // BLOCKS_PER_CHUNK) - length
        return total


@dataclass(frozen=True)
class Zeros:
    first: int
    count: int
    type = Type.ZEROS


@dataclass(frozen=True)
class End:
    digest: bytes
    type = Type.END


@dataclass(frozen=True)
class Error:
    code: int
    text: str
    type = Type.ERROR


@dataclass(frozen=True)
class Ping:
    type = Type.PING


@dataclass(frozen=True)
class Welcome:
    text: str
    type = Type.WELCOME


@dataclass(frozen=True)
class Index:
    """Leaves of the base for consecutive chunks from `first`: one (zero map, other leaves) each."""

    first: int
    chunks: tuple[tuple[int, bytes], ...]
    type = Type.INDEX


@dataclass(frozen=True)
class IndexRun:
    first: int
    count: int
    zeros: bool
    type = Type.INDEX_RUN


@dataclass(frozen=True)
class Ack:
    frames: int
    type = Type.ACK


@dataclass(frozen=True)
class Done:
    digest: bytes
    type = Type.DONE


Frame: TypeAlias = (
    Image | Chunk | Zeros | End | Error | Ping | Welcome | Index | IndexRun | Ack | Done
)

_CHUNK = struct.Struct(">QBBHHH32s")
_RUN = struct.Struct(">QQ")
_U64 = struct.Struct(">Q")


def encode(frame: Frame) -> list[Buffer]:
    """The frame's plaintext in parts, the type byte first; large payloads are not copied."""
    return [bytes((frame.type,)), *_ENCODE[frame.type](frame)]


def decode(plaintext: Buffer, image_size: int | None) -> Frame:
    """The frame in `plaintext`. `image_size` is needed for INDEX only. Raises PeerError."""
    view = memoryview(plaintext)
    if not len(view):
        raise PeerError("a frame without a type")
    decoder = _DECODE.get(view[0])
    if decoder is None:
        raise PeerError(f"a frame of unknown type {view[0]}")
    try:
        return decoder(view[1:], image_size)
    except (struct.error, UnicodeDecodeError, ValueError) as exc:
        raise PeerError(f"a malformed {Type(view[0]).name} frame: {exc}") from None


def check_range(frame: Frame, size: int) -> None:
    """Refuse a frame that names chunks or blocks which an image of `size` bytes has not. Raises PeerError."""
    total = chunk_count(size)
    if isinstance(frame, Chunk):
        if frame.index >= total:
            raise PeerError(f"chunk {frame.index} of an image of {total} chunks")
        blocks = block_count(chunk_length(size, frame.index))
        if (frame.data_map | frame.known_map) >> blocks:
            raise PeerError(f"chunk {frame.index} names a block beyond its end")
    elif isinstance(frame, Zeros | IndexRun):
        if frame.first + frame.count > total:
            raise PeerError(f"a run up to chunk {frame.first + frame.count} of {total}")
    elif isinstance(frame, Index) and frame.first + len(frame.chunks) > total:
        raise PeerError(f"an index up to chunk {frame.first + len(frame.chunks)} of {total}")


def _unpack_run(view: memoryview) -> tuple[int, int]:
    first, count = _RUN.unpack(view)
    if count == 0 or first + count > MAX_IMAGE:
        raise ValueError("an empty or impossible run")
    return first, count


def _decode_image(view: memoryview, _size: int | None) -> Image:
    (size,) = _U64.unpack(view)
    if size > MAX_IMAGE:
        raise ValueError(f"an image of {size} bytes")
    return Image(size)


def _decode_chunk(view: memoryview, _size: int | None) -> Chunk:
    index, codec, zero1, data_map, known_map, zero2, digest = _CHUNK.unpack(view[: _CHUNK.size])
    if zero1 or zero2:
        raise ValueError("a reserved field is not 0")
    if data_map & known_map:
        raise ValueError("a block is both data and known")
    payload = view[_CHUNK.size :]
    if bool(data_map) != bool(len(payload)):
        raise ValueError("payload and data map disagree")
    if codec and not data_map:
        raise ValueError("nothing, but packed")
    return Chunk(index, Codec(codec), data_map, known_map, digest, payload)


def _decode_zeros(view: memoryview, _size: int | None) -> Zeros:
    return Zeros(*_unpack_run(view))


def _exact_digest(view: memoryview) -> bytes:
    if len(view) != LEAF:
        raise ValueError(f"a digest of {len(view)} bytes")
    return bytes(view)


def _decode_error(view: memoryview, _size: int | None) -> Error:
    if not 2 <= len(view) <= 2 + MAX_TEXT:
        raise ValueError("bad length")
    return Error(int.from_bytes(view[:2], "big"), bytes(view[2:]).decode())


def _decode_ping(view: memoryview, _size: int | None) -> Ping:
    if len(view):
        raise ValueError("a body")
    return Ping()


def _decode_welcome(view: memoryview, _size: int | None) -> Welcome:
    if len(view) > MAX_WELCOME:
        raise ValueError("too long")
    return Welcome(bytes(view).decode())


def _decode_index(view: memoryview, size: int | None) -> Index:
    if size is None:
        raise ValueError("before the image's size is known")
    (first,) = _U64.unpack(view[:8])
    pos, index = 8, first
    chunks: list[tuple[int, bytes]] = []
    while pos < len(view):
        length = chunk_length(size, index)
        if length <= 0:
            raise ValueError("more chunks than the image has")
        blocks = block_count(length)
        zero_map = int.from_bytes(view[pos : pos + 2], "big")
        if zero_map >> blocks:
            raise ValueError("a zero map beyond the chunk's end")
        stop = pos + 2 + LEAF * (blocks - zero_map.bit_count())
        if stop > len(view):
            raise ValueError("leaves are missing")
        chunks.append((zero_map, bytes(view[pos + 2 : stop])))
        pos, index = stop, index + 1
    if not chunks or len(chunks) > INDEX_CHUNKS:
        raise ValueError(f"{len(chunks)} chunks")
    return Index(first, tuple(chunks))


def _decode_index_run(view: memoryview, _size: int | None) -> IndexRun:
    if len(view) != 17 or view[0] > 1:
        raise ValueError("bad length or kind")
    first, count = _unpack_run(view[1:])
    return IndexRun(first, count, zeros=view[0] == 1)


_DECODE: dict[int, Callable[[memoryview, int | None], Frame]] = {
    Type.IMAGE: _decode_image,
    Type.CHUNK: _decode_chunk,
    Type.ZEROS: _decode_zeros,
    Type.END: lambda v, _: End(_exact_digest(v)),
    Type.ERROR: _decode_error,
    Type.PING: _decode_ping,
    Type.WELCOME: _decode_welcome,
    Type.INDEX: _decode_index,
    Type.INDEX_RUN: _decode_index_run,
    Type.ACK: lambda v, _: Ack(*_U64.unpack(v)),
    Type.DONE: lambda v, _: Done(_exact_digest(v)),
}


def _encode_chunk(frame: Chunk) -> list[Buffer]:
    head = _CHUNK.pack(frame.index, frame.codec, 0, frame.data_map, frame.known_map, 0, frame.digest)
    return [head, frame.payload]


def _encode_index(frame: Index) -> list[Buffer]:
    parts: list[Buffer] = [_U64.pack(frame.first)]
    for zero_map, leaves in frame.chunks:
        parts += (zero_map.to_bytes(2, "big"), leaves)
    return parts


def _encode_error(frame: Error) -> list[Buffer]:
    # A text may name a file whose name is no UTF-8 (surrogates): it must be told all the same.
    text = frame.text.encode(errors="backslashreplace")[:MAX_TEXT].decode(errors="ignore").encode()
    return [frame.code.to_bytes(2, "big"), text]


_ENCODE: dict[Type, Callable[..., list[Buffer]]] = {
    Type.IMAGE: lambda f: [_U64.pack(f.size)],
    Type.CHUNK: _encode_chunk,
    Type.ZEROS: lambda f: [_RUN.pack(f.first, f.count)],
    Type.END: lambda f: [f.digest],
    Type.ERROR: _encode_error,
    Type.PING: lambda f: [],
    Type.WELCOME: lambda f: [f.text.encode()],
    Type.INDEX: _encode_index,
    Type.INDEX_RUN: lambda f: [bytes((f.zeros,)), _RUN.pack(f.first, f.count)],
    Type.ACK: lambda f: [_U64.pack(f.frames)],
    Type.DONE: lambda f: [f.digest],
}
