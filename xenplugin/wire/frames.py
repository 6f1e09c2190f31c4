"""Frames of the sealed stream and their plaintexts (docs/wire-format.md, section 5). Pure.

Decoding is strict: a body is exactly what the format says or PeerError is raised. Ranges that depend on
the image's size are checked by `check_range`, once the size is known.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from xenplugin.errors import PeerError
from xenplugin.geometry import MAX_IMAGE, block_count, chunk_count, chunk_length
from xenplugin.wire.kinds import (
    INDEX_CHUNKS,
    LEAF,
    MAX_ANSWER,
    MAX_NOTE,
    MAX_SEGMENT,
    MAX_TEXT,
    MAX_WELCOME,
    WINDOW,
    Ack,
    Answer,
    Buffer,
    Chunk,
    Codec,
    Done,
    End,
    Error,
    Frame,
    Image,
    Index,
    IndexRun,
    Note,
    Ping,
    Segment,
    Sent,
    Type,
    Welcome,
    Zeros,
)

__all__ = [
    "INDEX_CHUNKS",
    "LEAF",
    "MAX_ANSWER",
    "MAX_NOTE",
    "MAX_SEGMENT",
    "MAX_TEXT",
    "MAX_WELCOME",
    "WINDOW",
    "Ack",
    "Answer",
    "Buffer",
    "Chunk",
    "Codec",
    "Done",
    "End",
    "Error",
    "Frame",
    "Image",
    "Index",
    "IndexRun",
    "Note",
    "Ping",
    "Segment",
    "Sent",
    "Type",
    "Welcome",
    "Zeros",
    "check_range",
    "decode",
    "encode",
]

_CHUNK = struct.Struct(">QBBHHH32s")
_RUN = struct.Struct(">QQ")
_U64 = struct.Struct(">Q")
_END = struct.Struct(">32sQ")
_SEGMENT = struct.Struct(">QBI")


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
    index, codec, zero, data_map, known_map, version, digest = _CHUNK.unpack(view[: _CHUNK.size])
    if zero:
        raise ValueError("a reserved field is not 0")
    if data_map & known_map:
        raise ValueError("a block is both data and known")
    payload = view[_CHUNK.size :]
    if bool(data_map) != bool(len(payload)):
        raise ValueError("payload and data map disagree")
    if codec and not data_map:
        raise ValueError("nothing, but packed")
    return Chunk(index, Codec(codec), data_map, known_map, digest, payload, version)


def _decode_zeros(view: memoryview, _size: int | None) -> Zeros:
    return Zeros(*_unpack_run(view))


def _decode_segment(view: memoryview, _size: int | None) -> Segment:
    number, codec, length = _SEGMENT.unpack(view[: _SEGMENT.size])
    payload = view[_SEGMENT.size :]
    if not 0 < length <= MAX_SEGMENT or not len(payload):
        raise ValueError(f"a segment of {length} bytes in {len(payload)}")
    if codec == Codec.STORED and len(payload) != length:
        raise ValueError(f"a stored segment of {length} bytes in {len(payload)}")
    return Segment(number, Codec(codec), length, payload)


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


def _text(view: memoryview, most: int) -> str:
    if len(view) > most:
        raise ValueError("too long")
    return bytes(view).decode()


def _decode_answer(view: memoryview, _size: int | None) -> Answer:
    if not 0 < len(view) <= MAX_ANSWER:
        raise ValueError("bad length")
    return Answer(bytes(view))


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
    Type.END: lambda v, _: End(*_END.unpack(v)),
    Type.ERROR: _decode_error,
    Type.PING: _decode_ping,
    Type.SEGMENT: _decode_segment,
    Type.NOTE: lambda v, _: Note(_text(v, MAX_NOTE)),
    Type.WELCOME: lambda v, _: Welcome(_text(v, MAX_WELCOME)),
    Type.INDEX: _decode_index,
    Type.INDEX_RUN: _decode_index_run,
    Type.ACK: lambda v, _: Ack(*_U64.unpack(v)),
    Type.DONE: lambda v, _: Done(_exact_digest(v)),
    Type.ANSWER: _decode_answer,
}


def _encode_chunk(frame: Chunk) -> list[Buffer]:
    head = _CHUNK.pack(frame.index, frame.codec, 0, frame.data_map, frame.known_map, frame.version, frame.digest)
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
    Type.END: lambda f: [_END.pack(f.digest, f.count)],
    Type.ERROR: _encode_error,
    Type.PING: lambda f: [],
    Type.SEGMENT: lambda f: [_SEGMENT.pack(f.number, f.codec, f.length), f.payload],
    Type.NOTE: lambda f: [f.text.encode()],
    Type.WELCOME: lambda f: [f.text.encode()],
    Type.INDEX: _encode_index,
    Type.INDEX_RUN: lambda f: [bytes((f.zeros,)), _RUN.pack(f.first, f.count)],
    Type.ACK: lambda f: [_U64.pack(f.frames)],
    Type.DONE: lambda f: [f.digest],
    Type.ANSWER: lambda f: [f.data],
}
