"""The types of frames, and how their bodies are laid out in bytes (docs/wire-format.md, section 5). Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Self, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview


class Type(IntEnum):
    """The first byte of a frame's plaintext."""

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


@dataclass(frozen=True)
class Tail:
    """The part of a body that has a variable length: `least` to `most` bytes, which are UTF-8 if it is `text`."""

    most: int
    least: int = 0
    text: bool = False


class Body:
    """Base of the frames, which are dataclasses. A body has a `head` of fixed layout and may have a `tail`. The
    fields of a frame are those of the head, in order, and then the tail; frames of another shape have their own
    `pack` and `unpack`."""

    type: ClassVar[Type]
    head: ClassVar[struct.Struct] = struct.Struct("")
    tail: ClassVar[Tail | None] = None

    def pack(self) -> list[Buffer]:
        """Return the body in parts; a tail of bytes is not copied."""
        fields = list(vars(self).values())
        if self.tail is None:
            return [self.head.pack(*fields)]
        tail = fields.pop()
        return [self.head.pack(*fields), tail.encode() if self.tail.text else tail]

    @classmethod
    def unpack(cls, body: memoryview, image_size: int | None) -> Self:
        """Return the frame in `body`; INDEX alone needs the image's size (bytes). Raises ValueError or struct.error
        for a malformed body."""
        if cls.tail is None:
            return cls(*cls.head.unpack(body))
        fields = list(cls.head.unpack(body[: cls.head.size]))
        tail = bytes(body[cls.head.size :])
        if not cls.tail.least <= len(tail) <= cls.tail.most:
            raise ValueError(f"{len(tail)} bytes where {cls.tail.least} to {cls.tail.most} are allowed")
        fields.append(tail.decode() if cls.tail.text else tail)
        return cls(*fields)

    def check_range(self, image_size: int) -> None:
        """Raise PeerError if the frame names chunks or blocks that an image of `image_size` bytes does not have."""
