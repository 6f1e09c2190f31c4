"""The frames of the sealed stream as values (docs/wire-format.md, section 5). Pure; frames.py has their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from xenplugin.geometry import BLOCKS_PER_CHUNK, CHUNK, block_count, chunk_length

Buffer: TypeAlias = bytes | bytearray | memoryview

LEAF = 32
MAX_TEXT = 4096
MAX_WELCOME = 16384
#: Most bytes in an ANSWER, and in a NOTE's text.
MAX_ANSWER = MAX_NOTE = 16384
#: Most bytes of a domain's stream in one SEGMENT, unpacked.
MAX_SEGMENT = CHUNK
#: A SEGMENT's number is less than this above the number of those that were handed on.
WINDOW = 128
#: Most chunks in an INDEX frame, so that the frame stays near 16 KiB.
INDEX_CHUNKS = 31


class Type(IntEnum):
    IMAGE = 1
    CHUNK = 2
    ZEROS = 3
    END = 4
    ERROR = 5
    PING = 6
    SEGMENT = 7
    NOTE = 8
    WELCOME = 16
    INDEX = 17
    INDEX_RUN = 18
    ACK = 19
    DONE = 20
    ANSWER = 21


class Codec(IntEnum):
    STORED = 0
    ZSTD = 1


@dataclass(frozen=True)
class Image:
    size: int
    type = Type.IMAGE


@dataclass(frozen=True)
class Chunk:
    """One whole chunk; `payload` holds its data blocks, joined, packed by `codec`. `version`: how often it was
    read again before, in a live session."""

    index: int
    codec: Codec
    data_map: int
    known_map: int
    digest: bytes
    payload: Buffer
    version: int = 0
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
    """`count`: the sum of the chunks' versions, or the number of segments."""

    digest: bytes
    count: int = 0
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
class Segment:
    """The next `length` bytes of a domain's stream, packed by `codec`; numbered from 0."""

    number: int
    codec: Codec
    length: int
    payload: Buffer
    type = Type.SEGMENT


@dataclass(frozen=True)
class Note:
    """A JSON object, in either direction of a domain session."""

    text: str
    type = Type.NOTE


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


@dataclass(frozen=True)
class Answer:
    """What the far program of a domain session wrote, in order."""

    data: Buffer
    type = Type.ANSWER


#: What is acknowledged, and sent again where it was not.
Sent: TypeAlias = Chunk | Zeros | Segment
Frame: TypeAlias = Sent | Image | End | Error | Ping | Note | Welcome | Index | IndexRun | Ack | Done | Answer
