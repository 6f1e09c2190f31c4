"""A vector: a sealed stream, and what a reader must make of it."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from typing import Any

from tests.vectors.by_hand import (
    ACCEPTOR,
    BLOCK,
    CHUNK,
    CONNECTION,
    FILE,
    LABELS,
    SECRET,
    SESSION,
    Seal,
    chunk_,
    chunk_digest,
    derive,
    end_,
    event,
    image_,
    image_digest,
    noise,
    preamble,
    zeros_,
    zstd,
)

PEER, TAMPER, IMAGE_ERROR, LINK, REFUSED = "PeerError", "TamperError", "ImageError", "LinkError", "RefusedError"
#: The outcome where a data connection ends, and not the session.
LOST = "connection lost"
CODES = {PEER: 11, TAMPER: 12, IMAGE_ERROR: 13, LINK: 14, REFUSED: 15}

# The image that most vectors use: two chunks, a block and a part of a block.
TAIL = noise("tail", 300)
IMG = b"A" * BLOCK + b"B" * BLOCK + bytes(CHUNK - 2 * BLOCK) + bytes(CHUNK) + bytes(BLOCK) + TAIL
SIZE = len(IMG)
D0, D1, D2 = (chunk_digest(IMG[at : at + CHUNK]) for at in range(0, SIZE, CHUNK))
ROOT = image_digest(IMG)
PACKED = zstd([b"A" * BLOCK, b"B" * BLOCK])
C0 = chunk_(0, 0b11, PACKED, D0, codec=1)
Z1 = zeros_(1, 1)
C2 = chunk_(2, 0b10, TAIL, D2)
#: Everything of the image but its end.
BODY = [image_(SIZE), C0, Z1, C2]
WHOLE = [*BODY, end_(ROOT)]


class Stream:
    """A stream to be changed by a vector: its sealed frames and their plaintexts."""

    def __init__(
        self,
        plains: Iterable[bytes],
        *,
        head: bytes | None = None,
        secret: bytes = SECRET,
        acceptor: bytes | None = None,
        direction: str = "forward",
    ) -> None:
        self.head = preamble() if head is None else head
        self.carrier = "file" if self.head[10] == FILE else "connection"
        self.acceptor = acceptor or (bytes(32) if self.carrier == "file" else ACCEPTOR)
        self.secret = secret
        self.direction = direction
        self.plains = list(plains)
        self.seal = Seal(derive(secret, self.acceptor, direction, self.head), self.head[9])
        self.frames = [self.seal(plain) for plain in self.plains]

    def bytes(self) -> bytes:
        return (self.head if self.direction == "forward" else b"") + b"".join(self.frames)


class Vectors:
    """The vectors made so far, as vectors.json has them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        stream: Stream,
        *,
        data: bytes | None = None,
        good: int | None = None,
        error: str | None = None,
        outcome: str | None = "",
        secret: bytes | None = None,
        size: int = SIZE,
        cipher: int | None = None,
        expected: bytes | None = None,
        kind: str = "image",
        live: bool = False,
    ) -> None:
        """Add one vector.

        `good`: how many of the stream's frames a reader returns before `error` (None: all). `outcome`: the result
        at the receiver of the image, an error's name or the image's digest ("": the same as `error`, or the digest
        of the usual image; LOST; None: the stream alone does not determine it). `expected`: for a backward stream,
        the control channel's preamble as its reader knows it. `kind`, `live`: those of the job.
        """
        data = stream.bytes() if data is None else data
        if outcome == "":
            outcome = error or ("tree1:" + ROOT.hex() if stream.direction == "forward" else None)
        vector: dict[str, Any] = {
            "name": name,
            "carrier": stream.carrier,
            "direction": stream.direction,
            "secret": (stream.secret if secret is None else secret).hex(),
            "random": stream.acceptor.hex(),
        }
        if stream.carrier == "connection":
            number = struct.unpack(">I", stream.head[12:16])[0]
            label = LABELS[stream.head[9] if cipher is None else cipher]
            vector["number"] = number
            vector["job"] = {"session": SESSION.hex(), "cipher": label, "kind": kind, "size": size, "live": live}
        if stream.direction == "backward":
            vector["preamble"] = (expected or stream.head).hex()
        plains = stream.plains[: len(stream.plains) if good is None else good]
        vector |= {
            "events": [event(plain) for plain in plains],
            "error": error and {"class": error, "code": CODES[error]},
            "outcome": {"class": outcome, "code": CODES[outcome]} if outcome in CODES else outcome,
            "stream": base64.b64encode(data).decode(),
        }
        self.rows.append(vector)


def flip(data: bytes, at: int, bit: int = 0) -> bytes:
    out = bytearray(data)
    out[at] ^= 1 << bit
    return bytes(out)


CONN = preamble(carrier=CONNECTION)
DATA1 = preamble(carrier=CONNECTION, number=1)
