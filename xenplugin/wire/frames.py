"""The frames of the sealed stream, each with its bytes (docs/wire-format.md, section 5). Pure.

`encode` and `decode` turn a frame into its plaintext and back. Decoding is strict: a body that differs from the
format in any way raises PeerError. Ranges that depend on the image's size are checked by a frame's `check_range`,
once the size is known.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Self, TypeAlias, get_args

from xenplugin.errors import PeerError
from xenplugin.geometry import BLOCK, CHUNK, MAX_IMAGE, block_count, chunk_count, chunk_length
from xenplugin.wire.body import Body, Buffer, Tail, Type

#: Bytes of a block's digest, and of every other digest of the format.
LEAF = 32
#: Most bytes of an ERROR's text.
MAX_TEXT = 4096
#: Most bytes of a WELCOME's text.
MAX_WELCOME = 16384
#: Most bytes in an ANSWER, and in a NOTE's text.
MAX_ANSWER = MAX_NOTE = 16384
#: Most bytes of a domain's stream in one SEGMENT, unpacked.
MAX_SEGMENT = CHUNK
#: A SEGMENT's number is less than this above the number of segments that were handed on.
WINDOW = 128
#: Most chunks in an INDEX frame, so that the frame stays near 16 KiB.
INDEX_CHUNKS = 31


class Codec(IntEnum):
    """How a payload is encoded."""

    STORED = 0
    ZSTD = 1


# -- both directions ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Error(Body):
    """Ends the session; `code` is the exit code of the sender's failure."""

    code: int
    text: str
    type = Type.ERROR
    head = struct.Struct(">H")
    tail = Tail(MAX_TEXT, text=True)

    def pack(self) -> list[Buffer]:
        # A text may contain a file name that is not UTF-8 (surrogates) and must be sent all the same.
        text = self.text.encode(errors="backslashreplace")[:MAX_TEXT].decode(errors="ignore").encode()
        return [self.head.pack(self.code), text]


@dataclass(frozen=True)
class Ping(Body):
    """Keeps a quiet connection alive."""

    type = Type.PING


@dataclass(frozen=True)
class Note(Body):
    """A JSON object, in either direction of a domain session."""

    text: str
    type = Type.NOTE
    tail = Tail(MAX_NOTE, text=True)


# -- forward: from the initiator to the acceptor --------------------------------------------------


@dataclass(frozen=True)
class Image(Body):
    """The first frame of a connection: the image's size in bytes, 0 in a domain session."""

    size: int
    type = Type.IMAGE
    head = struct.Struct(">Q")

    @classmethod
    def unpack(cls, body: memoryview, image_size: int | None) -> Self:
        frame = super().unpack(body, image_size)
        if frame.size > MAX_IMAGE:
            raise ValueError(f"an image of {frame.size} bytes")
        return frame


@dataclass(frozen=True)
class Chunk(Body):
    """One whole chunk. `payload` holds its data blocks, joined and packed by `codec`; `version` counts how often it
    was read again before, in a live session."""

    index: int
    codec: Codec
    data_map: int
    known_map: int
    digest: bytes
    payload: Buffer
    version: int = 0
    type = Type.CHUNK
    head = struct.Struct(">QBBHHH32s")

    def payload_length(self, image_size: int) -> int:
        """Return the bytes of the unpacked payload: the data blocks, of which the image's last may be short."""
        length = chunk_length(image_size, self.index)
        blocks = block_count(length)
        total = self.data_map.bit_count() * BLOCK
        if self.data_map >> (blocks - 1) & 1:
            total -= blocks * BLOCK - length
        return total

    def pack(self) -> list[Buffer]:
        fields = (self.index, self.codec, 0, self.data_map, self.known_map, self.version, self.digest)
        return [self.head.pack(*fields), self.payload]

    @classmethod
    def unpack(cls, body: memoryview, image_size: int | None) -> Self:
        fields, payload = cls.head.unpack(body[: cls.head.size]), body[cls.head.size :]
        index, codec, zero, data_map, known_map, version, digest = fields
        if zero:
            raise ValueError("a reserved field is not 0")
        if data_map & known_map:
            raise ValueError("a block is both data and known")
        if bool(data_map) != bool(len(payload)):
            raise ValueError("payload and data map disagree")
        if codec and not data_map:
            raise ValueError("it has a codec but no payload")
        return cls(index, Codec(codec), data_map, known_map, digest, payload, version)

    def check_range(self, image_size: int) -> None:
        total = chunk_count(image_size)
        if self.index >= total:
            raise PeerError(f"chunk {self.index} of an image of {total} chunks")
        blocks = block_count(chunk_length(image_size, self.index))
        if (self.data_map | self.known_map) >> blocks:
            raise PeerError(f"chunk {self.index} names a block beyond its end")


@dataclass(frozen=True)
class Zeros(Body):
    """`count` whole chunks from `first` are zeros."""

    first: int
    count: int
    type = Type.ZEROS
    head = struct.Struct(">QQ")

    @classmethod
    def unpack(cls, body: memoryview, image_size: int | None) -> Self:
        frame = super().unpack(body, image_size)
        _check_run(frame.first, frame.count)
        return frame

    def check_range(self, image_size: int) -> None:
        _check_end("a run", self.first + self.count, image_size)


@dataclass(frozen=True)
class End(Body):
    """`digest` of the image or of the stream; `count` sums the chunks' versions, or counts segments."""

    digest: bytes
    count: int = 0
    type = Type.END
    head = struct.Struct(">32sQ")


@dataclass(frozen=True)
class Segment(Body):
    """The next `length` bytes of a domain's stream, packed by `codec`; numbered from 0."""

    number: int
    codec: Codec
    length: int
    payload: Buffer
    type = Type.SEGMENT
    head = struct.Struct(">QBI")

    def pack(self) -> list[Buffer]:
        return [self.head.pack(self.number, self.codec, self.length), self.payload]

    @classmethod
    def unpack(cls, body: memoryview, image_size: int | None) -> Self:
        (number, codec, length), payload = cls.head.unpack(body[: cls.head.size]), body[cls.head.size :]
        stored = codec == Codec.STORED
        if not 0 < length <= MAX_SEGMENT or not len(payload) or (stored and len(payload) != length):
            raise ValueError(f"a segment of {length} bytes in {len(payload)}")
        return cls(number, Codec(codec), length, payload)


# -- backward: from the acceptor to the initiator -------------------------------------------------


@dataclass(frozen=True)
class Welcome(Body):
    """The first frame of a connection, which proves the acceptor: a JSON object."""

    text: str
    type = Type.WELCOME
    tail = Tail(MAX_WELCOME, text=True)


@dataclass(frozen=True)
class Index(Body):
    """Leaves of the base for consecutive chunks from `first`: (zero map, leaves of the other blocks) for each."""

    first: int
    chunks: tuple[tuple[int, bytes], ...]
    type = Type.INDEX
    head = struct.Struct(">Q")

    def pack(self) -> list[Buffer]:
        parts: list[Buffer] = [self.head.pack(self.first)]
        for zero_map, leaves in self.chunks:
            parts += (zero_map.to_bytes(2, "big"), leaves)
        return parts

    @classmethod
    def unpack(cls, body: memoryview, image_size: int | None) -> Self:
        if image_size is None:
            raise ValueError("the image's size is not known yet")
        (first,) = cls.head.unpack(body[:8])
        pos, index = 8, first
        chunks: list[tuple[int, bytes]] = []
        while pos < len(body):
            length = chunk_length(image_size, index)
            if length <= 0:
                raise ValueError("more chunks than the image has")
            blocks = block_count(length)
            zero_map = int.from_bytes(body[pos : pos + 2], "big")
            if zero_map >> blocks:
                raise ValueError("a zero map beyond the chunk's end")
            stop = pos + 2 + LEAF * (blocks - zero_map.bit_count())
            if stop > len(body):
                raise ValueError("leaves are missing")
            chunks.append((zero_map, bytes(body[pos + 2 : stop])))
            pos, index = stop, index + 1
        if not chunks or len(chunks) > INDEX_CHUNKS:
            raise ValueError(f"{len(chunks)} chunks")
        return cls(first, tuple(chunks))

    def check_range(self, image_size: int) -> None:
        _check_end("an index", self.first + len(self.chunks), image_size)


@dataclass(frozen=True)
class IndexRun(Body):
    """The base has zeros (`zeros`), or nothing that is known, in `count` chunks from `first`."""

    first: int
    count: int
    zeros: bool
    type = Type.INDEX_RUN
    head = struct.Struct(">BQQ")

    def pack(self) -> list[Buffer]:
        return [self.head.pack(self.zeros, self.first, self.count)]

    @classmethod
    def unpack(cls, body: memoryview, image_size: int | None) -> Self:
        zeros, first, count = cls.head.unpack(body)
        if zeros > 1:
            raise ValueError(f"kind {zeros} is unknown")
        _check_run(first, count)
        return cls(first, count, zeros=zeros == 1)

    def check_range(self, image_size: int) -> None:
        _check_end("a run", self.first + self.count, image_size)


@dataclass(frozen=True)
class Ack(Body):
    """The first `frames` CHUNK, ZEROS and SEGMENT frames of this connection were written or handed on."""

    frames: int
    type = Type.ACK
    head = struct.Struct(">Q")


@dataclass(frozen=True)
class Done(Body):
    """The receipt: all of it is durable, and this is its digest."""

    digest: bytes
    type = Type.DONE
    head = struct.Struct(">32s")


@dataclass(frozen=True)
class Answer(Body):
    """What the far program of a domain session wrote, in order."""

    data: Buffer
    type = Type.ANSWER
    tail = Tail(MAX_ANSWER, least=1)


#: What is acknowledged, and sent again where it was not.
Sent: TypeAlias = Chunk | Zeros | Segment
Frame: TypeAlias = Sent | Image | End | Error | Ping | Note | Welcome | Index | IndexRun | Ack | Done | Answer

_KINDS: dict[int, type[Frame]] = {kind.type: kind for kind in get_args(Frame)}


def encode(frame: Frame) -> list[Buffer]:
    """Return the frame's plaintext in parts, the type byte first; large payloads are not copied."""
    return [bytes((frame.type,)), *frame.pack()]


def decode(plaintext: Buffer, image_size: int | None) -> Frame:
    """Return the frame in `plaintext`. `image_size` (bytes) is needed for INDEX only. Raises PeerError."""
    view = memoryview(plaintext)
    if not len(view):
        raise PeerError("a frame without a type")
    kind = _KINDS.get(view[0])
    if kind is None:
        raise PeerError(f"a frame of unknown type {view[0]}")
    try:
        return kind.unpack(view[1:], image_size)
    except (struct.error, UnicodeDecodeError, ValueError) as exc:
        raise PeerError(f"a malformed {kind.type.name} frame: {exc}") from None


def _check_run(first: int, count: int) -> None:
    if count == 0 or first + count > MAX_IMAGE:
        raise ValueError("an empty or impossible run")


def _check_end(what: str, end: int, image_size: int) -> None:
    if end > (total := chunk_count(image_size)):
        raise PeerError(f"{what} up to chunk {end} of {total}")
