"""The messages of a measurement: questions in NOTEs, answers in ANSWERs (docs/wire-format.md, section 9). Pure.

What comes from the other side is checked to its last byte; anything else than the format says is a PeerError.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xenplugin.errors import PeerError
from xenplugin.geometry import BLOCK, block_count, chunk_count, chunk_length
from xenplugin.image.index.digest import ZERO_LEAF, zero_leaf
from xenplugin.image.target.base_index import IndexItem, IndexLeaves, IndexZeros
from xenplugin.transfer.chunks.index_sender import without_zeros
from xenplugin.transfer.measuring.host_load import HostLoad
from xenplugin.transfer.sessions.job import MeasuredImage
from xenplugin.wire.frames import LEAF

#: Most chunks in a question, so that its answer fits into one ANSWER; and most questions that wait for an answer.
MOST_CHUNKS, MOST_QUESTIONS = 31, 64
#: Most bytes of SEGMENTs that are taken: that is a measurement, and no use of the path.
MOST_NOISE = 512 << 20
#: Kinds of a record: nothing is known of the chunk, it is zeros, it has these leaves.
_NOTHING, _ZEROS, _LEAVES = range(3)
_HEAD = struct.Struct(">I")
_MAP = struct.Struct(">H")


@dataclass(frozen=True)
class About:
    """What the destination says of itself. `boot` names the running kernel; `hash_seconds` it takes to hash 1 MiB;
    `load`: of its cores; `hidden`: numbers of the images whose old content it has, but cannot read now."""

    boot: str
    hash_seconds: float
    load: HostLoad
    hidden: tuple[int, ...]

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of its NOTE."""
        return {
            "boot": self.boot,
            "hash_seconds": self.hash_seconds,
            "running": self.load.running,
            "steal": self.load.steal,
            "hidden": list(self.hidden),
        }

    @classmethod
    def of(cls, fields: dict[str, Any], images: int) -> About:
        """Return what a NOTE with these `fields` says in a measurement of so many `images`. Raises PeerError."""
        match fields:
            case {
                "boot": str(boot),
                "hash_seconds": int(seconds) | float(seconds),
                "running": int(running) | float(running),
                "steal": int(steal) | float(steal),
                "hidden": list(hidden),
            } if 0 < seconds < 60 and 0 <= running <= 1e6 and 0 <= steal <= 1:
                if all(type(number) is int and 0 <= number < images for number in hidden):
                    return cls(boot, float(seconds), HostLoad(float(running), float(steal)), tuple(hidden))
        raise PeerError("what the far side says of itself in a measurement is malformed")


@dataclass(frozen=True)
class Question:
    """Which of the `chunks` of the image with this `number` does the destination have?"""

    number: int
    chunks: tuple[int, ...]

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of its NOTE."""
        return {"image": self.number, "chunks": list(self.chunks)}

    @classmethod
    def of(cls, fields: dict[str, Any], images: Sequence[MeasuredImage]) -> Question:
        """Return the question in a NOTE with these `fields`, about one of `images`. Raises PeerError."""
        number, chunks = fields.get("image"), fields.get("chunks")
        if type(number) is not int or not 0 <= number < len(images) or not isinstance(chunks, list):
            raise PeerError("a question of a measurement is malformed")
        most = chunk_count(images[number].size)
        if len(chunks) > MOST_CHUNKS or not all(type(index) is int and 0 <= index < most for index in chunks):
            raise PeerError("a question of a measurement asks for too much, or for what is not there")
        return cls(number, tuple(chunks))


@dataclass(frozen=True)
class AnsweredChunk:
    """What the destination has of a chunk: the leaves of all of its blocks, None if nothing is known."""

    leaves: bytes | None

    def known(self, leaves: bytes) -> int:
        """Return the map of the blocks that need not be sent, given the chunk's `leaves` at the source."""
        if self.leaves is None:
            return 0
        same = 0
        for block in range(len(leaves) // LEAF):
            at = slice(block * LEAF, (block + 1) * LEAF)
            if leaves[at] == self.leaves[at]:
                same |= 1 << block
        return same


def pack_answer(microseconds: int, items: Sequence[IndexItem], size: int) -> bytes:
    """Return the bytes of an answer about chunks of an image of `size` bytes, for which the destination needed
    `microseconds`."""
    parts = [_HEAD.pack(min(microseconds, 0xFFFFFFFF))]
    for item in items:
        if isinstance(item, IndexLeaves):
            zero_map, others = without_zeros(item.leaves, chunk_length(size, item.first))
            parts += [bytes([_LEAVES]), _MAP.pack(zero_map), others]
        else:
            parts.append(bytes([_ZEROS if isinstance(item, IndexZeros) else _NOTHING]))
    return b"".join(parts)


def unpack_answer(data: bytes, question: Question, size: int) -> tuple[float, list[AnsweredChunk]]:
    """Return the seconds that the destination needed, and what it has of each chunk of `question`, which is about
    an image of `size` bytes. Raises PeerError."""
    try:
        (microseconds,) = _HEAD.unpack_from(data)
        at, found = _HEAD.size, []
        for index in question.chunks:
            blocks, length = block_count(chunk_length(size, index)), chunk_length(size, index)
            kind = data[at]
            at += 1
            if kind == _LEAVES:
                (zero_map,) = _MAP.unpack_from(data, at)
                at += _MAP.size
                leaves = []
                for block in range(blocks):
                    if zero_map >> block & 1:
                        if length - block * BLOCK < BLOCK:
                            raise ValueError("a short block is called zero")
                        leaves.append(ZERO_LEAF)
                        continue
                    leaves.append(data[at : at + LEAF])
                    at += LEAF
                if zero_map >> blocks:
                    raise ValueError("a block beyond the chunk's end")
                found.append(AnsweredChunk(b"".join(leaves)))
            elif kind == _ZEROS:
                found.append(AnsweredChunk(_zero_leaves(length)))
            elif kind == _NOTHING:
                found.append(AnsweredChunk(None))
            else:
                raise ValueError(f"kind {kind}")
        if at != len(data):
            raise ValueError("its length")
    except (ValueError, IndexError, struct.error) as exc:
        raise PeerError(f"an answer of a measurement is malformed: {exc}") from None
    return microseconds / 1e6, found


def _zero_leaves(length: int) -> bytes:
    whole, rest = divmod(length, BLOCK)
    return ZERO_LEAF * whole + (zero_leaf(rest) if rest else b"")
