#!/usr/bin/env python3
"""Makes vectors.json: sealed streams, good and bad, and what a reader must say of each.

Written from docs/wire-format.md alone: nothing of xenplugin is imported, so that the text and the program
are checked against each other. Everything is derived from fixed seeds and zstd frames are put together by
hand, so the output is the same everywhere.

    python3 tests/vectors/make.py > tests/vectors/vectors.json
"""

from __future__ import annotations

import base64
import json
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from byhand import (
    ACCEPTOR,
    AES128,
    AES256,
    BLOCK,
    CHACHA,
    CHUNK,
    CONNECTION,
    END,
    ERROR,
    FILE,
    IMAGE,
    INDEX,
    LABELS,
    PING_,
    SECRET,
    SESSION,
    Seal,
    ack_,
    answer_,
    chunk_,
    chunk_digest,
    derive,
    done_,
    end_,
    error_,
    event,
    image_,
    image_digest,
    index_,
    noise,
    note_,
    preamble,
    run_,
    segment_,
    sha,
    welcome_,
    zeros_,
    zstd,
)

PEER, TAMPER, IMAGE_ERROR, LINK, REFUSED = "PeerError", "TamperError", "ImageError", "LinkError", "RefusedError"
CODES = {PEER: 11, TAMPER: 12, IMAGE_ERROR: 13, LINK: 14, REFUSED: 15}


# -- the image most vectors use: 2 chunks and a block and a piece -----------------------------------

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

VECTORS: list[dict[str, Any]] = []


class Stream:
    """A stream in the making: frames as sealed, and the plaintexts behind them."""

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


def add(
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
    """`good`: how many of the stream's plaintexts a reader gives before `error` (None: all). `outcome`: what
    the receiver of the image says in the end, an error's name or the image's digest ("": as `error`, or the
    digest of the usual image; None: not determined by the stream alone). `expected`: the preamble of the
    control channel as the far side of a backward stream knows it. `kind`, `live`: the job's."""
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
    VECTORS.append(vector)


def flip(data: bytes, at: int, bit: int = 0) -> bytes:
    out = bytearray(data)
    out[at] ^= 1 << bit
    return bytes(out)


CONN = preamble(carrier=CONNECTION)
DATA1 = preamble(carrier=CONNECTION, number=1)


def good_streams() -> None:
    for cipher, label in LABELS.items():
        add(f"file, {label}", Stream(WHOLE, head=preamble(cipher)))
        add(f"control channel, {label}", Stream(WHOLE, head=preamble(cipher, CONNECTION)))
        data = Stream(BODY, head=preamble(cipher, CONNECTION, 7))
        add(f"data connection, {label}", data, outcome=None)
    add("frames in another order of chunks", Stream([BODY[0], C2, Z1, C0, end_(ROOT)]))
    add("a chunk described twice, the same", Stream([*BODY, C0, Z1, end_(ROOT)], head=CONN))
    add("pings", Stream([BODY[0], PING_, *BODY[1:], PING_, end_(ROOT), PING_], head=CONN))
    add(
        "an error, told",
        Stream([BODY[0], error_(13, "lost a disk: \u00fc".encode())], head=CONN),
        outcome=IMAGE_ERROR,
    )
    add("an error before the image", Stream([error_(15, b"")], head=CONN), outcome=None)
    add("an unknown error code", Stream([BODY[0], error_(999, b"?")], head=CONN), outcome=PEER)
    add("an error text of 4096 bytes", Stream([BODY[0], error_(12, b"x" * 4096)], head=CONN), outcome=TAMPER)

    empty = b""
    add(
        "empty image",
        Stream([image_(0), end_(image_digest(empty))]),
        outcome="tree1:" + image_digest(empty).hex(),
    )
    one = b"\x01"
    add(
        "image of one byte",
        Stream([image_(1), chunk_(0, 1, one, chunk_digest(one)), end_(image_digest(one))]),
        outcome="tree1:" + image_digest(one).hex(),
    )
    block = noise("block", BLOCK) + bytes(BLOCK)
    add(
        "a stored block, a zero block beside it",
        Stream([image_(2 * BLOCK), chunk_(0, 1, block[:BLOCK], chunk_digest(block)), end_(image_digest(block))]),
        outcome="tree1:" + image_digest(block).hex(),
    )
    hole = bytes(3 * CHUNK)
    add(
        "nothing but zeros",
        Stream([image_(len(hole)), zeros_(0, 3), end_(image_digest(hole))]),
        outcome="tree1:" + image_digest(hole).hex(),
    )
    add(
        "a chunk of zeros as a chunk",
        Stream([image_(CHUNK), chunk_(0, 0, b"", chunk_digest(bytes(CHUNK))), end_(image_digest(bytes(CHUNK)))]),
        outcome="tree1:" + image_digest(bytes(CHUNK)).hex(),
    )
    full = b"".join(bytes((i + 1,)) * BLOCK for i in range(16)) + b"z" * (2 * BLOCK)
    frames = [
        image_(len(full)),
        chunk_(
            0,
            0xFFFF,
            zstd([full[i : i + BLOCK] for i in range(0, CHUNK, BLOCK)]),
            chunk_digest(full[:CHUNK]),
            codec=1,
        ),
        chunk_(1, 3, zstd([b"z" * BLOCK] * 2), chunk_digest(full[CHUNK:]), codec=1),
        end_(image_digest(full)),
    ]
    add("whole chunks, the last ends with a block", Stream(frames), outcome="tree1:" + image_digest(full).hex())
    pieces = [b"q" * BLOCK, noise("mix", 1000), b"q" * (BLOCK - 1000)]
    content = pieces[0] + bytes(BLOCK) + pieces[1] + pieces[2] + bytes(13 * BLOCK)
    mixed = [image_(CHUNK), chunk_(0, 0b101, zstd(pieces), chunk_digest(content), codec=1)]
    add(
        "data blocks apart, in one zstd frame",
        Stream([*mixed, end_(image_digest(content))]),
        outcome="tree1:" + image_digest(content).hex(),
    )


def preambles() -> None:
    for carrier, head in ((FILE, preamble()), (CONNECTION, CONN)):
        where = "file" if carrier == FILE else "control channel"
        stream = Stream(WHOLE, head=head)
        whole = stream.bytes()
        conn = carrier == CONNECTION
        for at, bit, field, error in (
            (0, 7, "magic, first byte", TAMPER),
            (4, 5, "magic, the carriage return", TAMPER),
            (7, 0, "magic, last byte", TAMPER),
            (8, 1, "version", PEER),
            (9, 1, "cipher, another known", PEER if conn else TAMPER),
            (9, 6, "cipher, unknown", PEER),
            (10, 2, "carrier, unknown", PEER),
            (11, 0, "reserved", PEER),
            (12, 7, "number, first bit", PEER),
            (15, 0, "number, last bit", PEER),
            (16, 0, "session, first byte", PEER if conn else TAMPER),
            (31, 7, "session, last byte", PEER if conn else TAMPER),
            (32, 0, "random, first byte", TAMPER),
            (63, 7, "random, last byte", TAMPER),
        ):
            add(
                f"{where}: flipped bit in the preamble: {field}",
                stream,
                data=flip(whole, at, bit),
                good=0,
                error=error,
            )
        other = bytearray(whole)
        other[10] = FILE if conn else CONNECTION
        add(f"{where}: the other carrier in the preamble", stream, data=bytes(other), good=0, error=PEER)
        for version in (0, 2, 255):
            other = bytearray(whole)
            other[8] = version
            add(f"{where}: version {version}", stream, data=bytes(other), good=0, error=PEER)
        for cipher in (0, 4):
            other = bytearray(whole)
            other[9] = cipher
            add(f"{where}: cipher {cipher}", stream, data=bytes(other), good=0, error=PEER)
        add(f"{where}: wrong secret", stream, good=0, error=TAMPER, secret=noise("another", 32))
        add(f"{where}: secret with one bit changed", stream, good=0, error=TAMPER, secret=flip(SECRET, 31))
        strange = Stream(WHOLE, head=head, acceptor=noise("someone else", 32))
        strange.acceptor = bytes(32) if carrier == FILE else ACCEPTOR
        add(f"{where}: sealed for another acceptor's random", strange, good=0, error=TAMPER)
    # sealed like that by somebody who has the secret: what a reader must refuse all the same
    add("a file with a number", Stream(WHOLE, head=preamble(number=1)), good=0, error=PEER)
    add(
        "another cipher than the job's",
        Stream(WHOLE, head=preamble(CHACHA, CONNECTION)),
        cipher=AES128,
        good=0,
        error=PEER,
    )
    other_session = preamble(carrier=CONNECTION, session=noise("other session", 16))
    add("another session than the job's", Stream(WHOLE, head=other_session), good=0, error=PEER)
    add("gzip, not a sealed stream", Stream([]), data=bytes.fromhex("1f8b0800") + bytes(100), good=0, error=TAMPER)
    # \r\n became \n, as a transfer in text mode does
    data = Stream(WHOLE).bytes().replace(b"\r\n", b"\n", 1)
    add("damaged by a transfer in text mode", Stream(WHOLE), data=data, good=0, error=TAMPER)


def damage() -> None:
    for where, head in (("file", preamble(AES256)), ("control channel", preamble(CHACHA, CONNECTION))):
        conn = head[10] == CONNECTION
        stream = Stream(WHOLE, head=head)
        whole = stream.bytes()
        starts = [64]
        for frame in stream.frames:
            starts.append(starts[-1] + len(frame))
        names = ("IMAGE", "CHUNK", "ZEROS", "CHUNK 2", "END")
        for place, name in enumerate(names):
            start, stop = starts[place], starts[place + 1]
            for at, what in (
                (start + 4, "ciphertext, the type"),
                ((start + 4 + stop - 16) // 2, "ciphertext, the middle"),
                (stop - 16, "tag, first byte"),
                (stop - 1, "tag, last byte"),
            ):
                add(
                    f"{where}: flipped bit in {name}: {what}",
                    stream,
                    data=flip(whole, at, at % 8),
                    good=place,
                    error=TAMPER,
                )
            add(
                f"{where}: flipped bit in {name}: length, impossible",
                stream,
                data=flip(whole, start, 7),
                good=place,
                error=TAMPER,
            )
            shorter = flip(whole, start + 3, (whole[start + 3] & -whole[start + 3]).bit_length() - 1)
            add(f"{where}: flipped bit in {name}: length, shorter", stream, data=shorter, good=place, error=TAMPER)
        # longer than what follows: a file ends too early, a connection is waited for
        longer = flip(whole, starts[1] + 1, 3)
        if conn:
            add(f"{where}: flipped bit in CHUNK: length, longer", stream, data=longer, good=1, outcome=LINK)
        else:
            add(f"{where}: flipped bit in CHUNK: length, longer", stream, data=longer, good=1, error=TAMPER)
        cuts = {0: "nothing", 1: "one byte", 8: "the magic", 63: "most of the preamble", 64: "the preamble"}
        for place, name in enumerate(names):
            start, stop = starts[place], starts[place + 1]
            cuts[start + 1] = f"one byte of {name}"
            cuts[start + 4] = f"the length of {name}"
            cuts[(start + stop) // 2] = f"half of {name}"
            cuts[stop - 1] = f"all but the last byte of {name}"
            if place < 4:
                cuts[stop] = f"all up to {name}"
        for cut, what in sorted(cuts.items()):
            good = sum(stop <= cut for stop in starts[1:])
            if conn:
                add(f"{where}: cut to {what}", stream, data=whole[:cut], good=good, outcome=LINK)
            else:
                add(f"{where}: cut to {what}", stream, data=whole[:cut], good=good, error=TAMPER)
        frames = stream.frames

        def mixed(order: Sequence[int], head: bytes = head, frames: list[bytes] = frames) -> bytes:
            return head + b"".join(frames[i] for i in order)

        add(f"{where}: frames 1 and 2 exchanged", stream, data=mixed((0, 2, 1, 3, 4)), good=1, error=TAMPER)
        add(f"{where}: frame 1 repeated", stream, data=mixed((0, 1, 1, 2, 3, 4)), good=2, error=TAMPER)
        add(f"{where}: frame 2 left out", stream, data=mixed((0, 1, 3, 4)), good=2, error=TAMPER)
        add(f"{where}: first frame left out", stream, data=mixed((1, 2, 3, 4)), good=0, error=TAMPER)
        add(f"{where}: only the END", stream, data=mixed((4,)), good=0, error=TAMPER)
        foreign = Stream(WHOLE, head=head[:32] + noise("another stream", 32))
        data = mixed((0,)) + foreign.frames[1] + mixed((2, 3, 4))[64:]
        add(f"{where}: a frame of another stream in its place", stream, data=data, good=1, error=TAMPER)
        reflected = Stream(WHOLE, head=head, direction="backward")
        data = mixed((0,)) + reflected.frames[1]
        add(f"{where}: a frame sealed with the backward key", stream, data=data, good=1, error=TAMPER)
        for length in (0, 16, (1 << 20) + (16 << 10) + 17, 0xFFFFFFFF):
            data = mixed((0,)) + struct.pack(">I", length) + bytes(40)
            add(f"{where}: length {length}", stream, data=data, good=1, error=TAMPER)
        sealer = Seal(derive(SECRET, stream.acceptor, "forward", head), head[9])
        sealer.counter = 1
        add(f"{where}: counter begins at 1", stream, data=head + b"".join(map(sealer, WHOLE)), good=0, error=TAMPER)
        empty = Stream([BODY[0], b""], head=head)
        add(f"{where}: a frame without a type", empty, good=1, error=TAMPER)
        sealer.counter = 0
        plain = sealer.aead.encrypt(bytes(12), WHOLE[0], None)
        data = head + struct.pack(">I", len(plain)) + plain
        add(f"{where}: length not authenticated", stream, data=data, good=0, error=TAMPER)
        little = sealer.aead.encrypt(bytes(12), WHOLE[0], header := struct.pack("<I", 25)) + b""
        add(f"{where}: length in the other byte order", stream, data=head + header + little, good=0, error=TAMPER)


def after_end() -> None:
    add("file: a second END", Stream([*WHOLE, end_(ROOT)]), good=5, error=TAMPER)
    add("file: a byte after END", Stream(WHOLE), data=Stream(WHOLE).bytes() + b"\0", error=TAMPER)
    add("file: a length after END", Stream(WHOLE), data=Stream(WHOLE).bytes() + struct.pack(">I", 37), error=TAMPER)
    add("file: a chunk after END", Stream([*WHOLE, C0]), good=5, error=TAMPER)
    add("file: the file twice", Stream(WHOLE), data=Stream(WHOLE).bytes() * 2, error=TAMPER)
    add("control channel: a second END", Stream([*WHOLE, end_(ROOT)], head=CONN), good=5, error=PEER, outcome=None)
    add("control channel: a chunk after END", Stream([*WHOLE, C0], head=CONN), good=5, error=PEER, outcome=None)
    add("control channel: zeros after END", Stream([*WHOLE, Z1], head=CONN), good=5, error=PEER, outcome=None)
    add(
        "control channel: the image after END",
        Stream([*WHOLE, BODY[0]], head=CONN),
        good=5,
        error=PEER,
        outcome=None,
    )
    add(
        "control channel: anything after an error",
        Stream([BODY[0], error_(13, b"gone"), PING_], head=CONN),
        good=2,
        error=PEER,
        outcome=IMAGE_ERROR,
    )
    add("data connection: END", Stream([*BODY, end_(ROOT)], head=DATA1), good=4, error=PEER, outcome=None)


def orders() -> None:
    for where, head in (("file", preamble()), ("control channel", CONN)):
        conn = head[10] == CONNECTION

        def bad(
            name: str,
            plain: bytes,
            before: Sequence[bytes] = (BODY[0],),
            head: bytes = head,
            where: str = where,
        ) -> None:
            add(f"{where}: {name}", Stream([*before, plain], head=head), good=len(before), error=PEER)

        bad("CHUNK before IMAGE", C0, ())
        bad("ZEROS before IMAGE", Z1, ())
        bad("END before IMAGE", end_(ROOT), ())
        bad("PING before IMAGE", PING_, ())
        bad("IMAGE twice", BODY[0])
        for kind in (0, 9, 15, 22, 128, 255):
            bad(f"type {kind}", bytes((kind,)) + bytes(16))
        for name, plain in (
            ("WELCOME", welcome_(b"{}")),
            ("INDEX", index_(0, (0xFFFF, b""))),
            ("INDEX-RUN", run_(0, 1)),
            ("ACK", ack_(1)),
            ("DONE", done_(ROOT)),
            ("ANSWER", answer_(b"x")),
        ):
            bad(f"{name} from the wrong side", plain)
        bad("SEGMENT of another kind of session", segment_(0, b"x"))
        bad("NOTE of another kind of session", note_(b"{}"))
        if not conn:
            bad("PING in a file", PING_)
            bad("ERROR in a file", error_(13, b"no"))
        bad("IMAGE of 7 bytes", bytes((IMAGE,)) + bytes(7), ())
        bad("IMAGE of 9 bytes", image_(SIZE) + b"\0", ())
        bad("IMAGE too large", image_((1 << 60) + 1), ())
        bad("IMAGE of 2^64-1", image_((1 << 64) - 1), ())
        bad("CHUNK without a digest", C0[:20])
        bad("CHUNK with a short digest", C0[:48])
        bad("CHUNK: reserved field", chunk_(0, 3, PACKED, D0, codec=1, reserved=1))
        bad("CHUNK: codec 2", chunk_(0, 3, PACKED, D0, codec=2))
        bad("CHUNK: codec 255", chunk_(0, 3, PACKED, D0, codec=255))
        bad("CHUNK: a block both data and known", chunk_(0, 3, PACKED, D0, codec=1, known=2))
        bad("CHUNK: beyond the end", chunk_(3, 1, b"x", D0))
        bad("CHUNK: number 2^64-1", chunk_((1 << 64) - 1, 1, b"x", D0))
        bad("CHUNK: a data block beyond the end", chunk_(2, 0b110, TAIL, D2))
        bad("CHUNK: a known block beyond the end", chunk_(2, 0b10, TAIL, D2, known=0x8000))
        bad("CHUNK: a map without a payload", chunk_(0, 1, b"", D0))
        bad("CHUNK: a payload without a map", chunk_(0, 0, b"x", D0))
        bad("CHUNK: packed, without a map or a payload", chunk_(1, 0, b"", D1, codec=1))
        bad("CHUNK: packed nothing", chunk_(1, 0, zstd([b""]), D1, codec=1))
        bad("ZEROS of none", zeros_(0, 0))
        bad("ZEROS beyond the end", zeros_(2, 2))
        bad("ZEROS from beyond the end", zeros_(3, 1))
        bad("ZEROS that overflow", zeros_((1 << 64) - 1, 1))
        bad("ZEROS that overflow to nothing", zeros_(1, (1 << 64) - 1))
        bad("ZEROS of 15 bytes", Z1[:-1])
        bad("ZEROS of 17 bytes", Z1 + b"\0")
        bad("END of 39 bytes", end_(ROOT)[:-1], BODY)
        bad("END of 41 bytes", end_(ROOT) + b"\0", BODY)
        bad("END without a digest", bytes((END,)), BODY)
        if conn:
            bad("PING with a body", PING_ + b"\0")
            bad("ERROR of 1 byte", bytes((ERROR, 0)))
            bad("ERROR: text is not UTF-8", error_(13, b"\xff"))
            bad("ERROR: half a character", error_(13, b"ok \xc3"))
            bad("ERROR: text of 4097 bytes", error_(13, b"x" * 4097))
            add(
                f"{where}: IMAGE of another size than the job's",
                Stream(WHOLE, head=head),
                size=SIZE + 1,
                good=0,
                error=PEER,
            )


def contents() -> None:
    """Frames that are well-formed, of an image that is not."""

    def bad(name: str, plains: Sequence[bytes], outcome: str, only: str = "") -> None:
        for where, head in (("file", preamble()), ("control channel", CONN)):
            if only in ("", where):
                add(f"{where}: {name}", Stream(plains, head=head), outcome=outcome)

    def first(name: str, chunk: bytes, outcome: str, only: str = "") -> None:
        bad(name, [BODY[0], chunk, *WHOLE[2:]], outcome, only)

    first("stored payload, a block short", chunk_(0, 3, b"A" * 1000, D0), PEER)
    bad("stored payload, a byte short", [*BODY[:3], chunk_(2, 2, TAIL[:-1], D2), WHOLE[4]], PEER)
    bad("stored payload, a byte long", [*BODY[:3], chunk_(2, 2, TAIL + b"x", D2), WHOLE[4]], PEER)
    first("packed: declares a byte less", chunk_(0, 3, zstd([b"A" * BLOCK, b"B" * (BLOCK - 1)]), D0, codec=1), PEER)
    first("packed: declares a byte more", chunk_(0, 3, zstd([b"A" * BLOCK, b"B" * BLOCK, b"x"]), D0, codec=1), PEER)
    first(
        "packed: declares 4 GiB less one byte",
        chunk_(0, 3, zstd([b"A" * BLOCK] * 2, 0xFFFFFFFF), D0, codec=1),
        PEER,
    )
    first(
        "packed: does not say its length",
        chunk_(0, 3, zstd([b"A" * BLOCK, b"B" * BLOCK], sized=False), D0, codec=1),
        PEER,
    )
    bomb = zstd([b"A" * BLOCK] * 300, 2 * BLOCK)
    first("packed: a bomb, more than it declares", chunk_(0, 3, bomb, D0, codec=1), IMAGE_ERROR)
    less = zstd([b"A" * BLOCK], 2 * BLOCK)
    first("packed: less than it declares", chunk_(0, 3, less, D0, codec=1), IMAGE_ERROR)
    first("packed: bytes after the zstd frame", chunk_(0, 3, PACKED + b"\0", D0, codec=1), IMAGE_ERROR)
    first("packed: two zstd frames", chunk_(0, 3, PACKED + zstd([b"x"]), D0, codec=1), IMAGE_ERROR)
    first("packed: cut", chunk_(0, 3, PACKED[:-1], D0, codec=1), IMAGE_ERROR)
    first("packed: not zstd", chunk_(0, 3, noise("garbage", 200), D0, codec=1), IMAGE_ERROR)
    skip = bytes.fromhex("502a4d18") + struct.pack("<I", 4) + b"skip"
    first("packed: a skippable frame first", chunk_(0, 3, skip + PACKED, D0, codec=1), PEER)
    first("digest of a chunk is wrong", chunk_(0, 3, PACKED, flip(D0, 0), codec=1), IMAGE_ERROR)
    first(
        "content of a chunk is another", chunk_(0, 3, zstd([b"A" * BLOCK, b"C" * BLOCK]), D0, codec=1), IMAGE_ERROR
    )
    first("data and zeros in the wrong blocks", chunk_(0, 6, PACKED, D0, codec=1), IMAGE_ERROR)
    other = b"A" * BLOCK + b"C" * BLOCK + bytes(CHUNK - 2 * BLOCK)
    changed = chunk_(0, 3, zstd([b"A" * BLOCK, b"C" * BLOCK]), chunk_digest(other), codec=1)
    bad("a chunk described twice, differently", [*BODY, changed, WHOLE[4]], IMAGE_ERROR)
    bad("a chunk described as zeros, too", [*BODY, zeros_(0, 1), WHOLE[4]], IMAGE_ERROR)
    bad("END with another digest", [*BODY, end_(flip(ROOT, 31))], IMAGE_ERROR)
    bad("END of the right chunks in another size", [*BODY, end_(image_digest(IMG + b"\0"))], IMAGE_ERROR)
    bad("a chunk is missing", [*BODY[:3], WHOLE[4]], TAMPER, "file")
    bad("all chunks are missing", [BODY[0], WHOLE[4]], TAMPER, "file")
    first("a version", chunk_(0, 3, PACKED, D0, codec=1, version=1), PEER)
    bad("END counts versions", [*BODY, end_(ROOT, 1)], PEER)
    bad("a chunk is missing", [*BODY[:3], WHOLE[4]], LINK, "control channel")
    first("a known block", chunk_(0, 1, zstd([b"A" * BLOCK]), D0, codec=1, known=2), PEER, "file")
    first(
        "known blocks of a base that there is not",
        chunk_(0, 1, zstd([b"A" * BLOCK]), D0, codec=1, known=2),
        PEER,
        "control channel",
    )


def backward() -> None:
    def make(plains: Sequence[bytes], head: bytes = CONN) -> Stream:
        return Stream(plains, head=head, direction="backward")

    hello = welcome_(b'{"port":49300,"addresses":["192.0.2.1","2001:db8::1"],"resumed":0}')
    leaves = b"".join(sha(IMG[at : at + BLOCK]) for at in range(0, 2 * BLOCK, BLOCK))
    full = (0xFFFC, leaves)
    zero_and_tail = (1, sha(TAIL))
    add(
        "backward: a whole session",
        make(
            [
                hello,
                index_(0, full),
                run_(1, 1),
                PING_,
                index_(2, zero_and_tail),
                ack_(2),
                ack_(3),
                done_(ROOT),
                PING_,
            ]
        ),
    )
    add("backward: no base", make([hello, run_(0, 3, 0), ack_(3), done_(ROOT)]))
    add("backward: index of all chunks in one frame", make([hello, index_(0, full, (0xFFFF, b""), zero_and_tail)]))
    add(
        "backward: a short last block that is zeros may be said to be",
        make([hello, index_(0, full, full, (3, b""))]),
    )
    add(
        "backward: data connection",
        make([welcome_(b"{}"), ack_(1), PING_, error_(13, b"disk full")], DATA1),
        outcome=IMAGE_ERROR,
    )
    add("backward: an error instead of a welcome", make([error_(15, b"in use")]), outcome=REFUSED)
    big = b'{"x":"' + b"y" * (16384 - 8) + b'"}'
    add("backward: a welcome of 16384 bytes", make([welcome_(big)]))
    for cipher, label in LABELS.items():
        add(f"backward: {label}", make([hello, run_(0, 3, 0), done_(ROOT)], preamble(cipher, CONNECTION)))

    def bad(
        name: str, plain: bytes, before: Sequence[bytes] = (hello,), head: bytes = CONN, size: int = SIZE
    ) -> None:
        add(f"backward: {name}", make([*before, plain], head), good=len(before), error=PEER, size=size)

    bad("INDEX before WELCOME", index_(0, full), ())
    bad("ACK before WELCOME", ack_(0), ())
    bad("PING before WELCOME", PING_, ())
    bad("WELCOME twice", hello)
    bad("WELCOME is not UTF-8", welcome_(b'{"\xff":1}'), ())
    bad("WELCOME of 16385 bytes", welcome_(big + b" "), ())
    bad("INDEX without a number", bytes((INDEX,)) + bytes(7))
    bad("INDEX without chunks", index_(0))
    bad("INDEX from beyond the end", index_(3, (0, leaves)))
    bad("INDEX from 2^64-1", index_((1 << 64) - 1, (0xFFFF, b"")))
    bad("INDEX beyond the end", index_(2, zero_and_tail, full))
    bad("INDEX: a zero block beyond the end", index_(2, (0b100, sha(TAIL))))
    bad("INDEX: half a map", index_(0, full) + b"\0")
    bad("INDEX: leaves are missing", index_(0, (0xFFFB, leaves)))
    bad("INDEX: a byte of a leaf is missing", index_(0, full)[:-1])
    bad("INDEX of 32 chunks", index_(0, *[(0xFFFF, b"")] * 32), size=40 * CHUNK)
    add("backward: INDEX of 31 chunks", make([hello, index_(0, *[(0xFFFF, b"")] * 31)]), size=40 * CHUNK)
    bad("INDEX on a data connection", index_(0, full), (welcome_(b"{}"),), DATA1)
    bad("INDEX-RUN on a data connection", run_(0, 3), (welcome_(b"{}"),), DATA1)
    bad("DONE on a data connection", done_(ROOT), (welcome_(b"{}"),), DATA1)
    bad("INDEX-RUN of kind 2", run_(0, 3, 2))
    bad("INDEX-RUN of none", run_(0, 0))
    bad("INDEX-RUN beyond the end", run_(1, 3))
    bad("INDEX-RUN that overflows", run_((1 << 64) - 1, 1))
    bad("INDEX-RUN of 16 bytes", run_(0, 3)[:-1])
    bad("INDEX-RUN of 18 bytes", run_(0, 3) + b"\0")
    bad("ACK of 7 bytes", ack_(0)[:-1])
    bad("ACK of 9 bytes", ack_(0) + b"\0")
    bad("DONE of 31 bytes", done_(ROOT)[:-1])
    bad("DONE twice", done_(ROOT), (hello, done_(ROOT)))
    bad("ACK after DONE", ack_(1), (hello, done_(ROOT)))
    bad("INDEX after DONE", index_(0, full), (hello, done_(ROOT)))
    for name, plain in (("IMAGE", BODY[0]), ("CHUNK", C0), ("ZEROS", Z1), ("END", end_(ROOT))):
        bad(f"{name} from the wrong side", plain)
    bad("type 0", bytes(9))
    bad("type 23", bytes((23,)))
    bad("ANSWER of another kind of session", answer_(b"x"))
    bad("NOTE of another kind of session", note_(b"{}"))

    def wrong(name: str, plains: Sequence[bytes]) -> None:
        add(f"backward: {name}", make(plains), outcome=PEER)

    wrong("WELCOME is no JSON", [welcome_(b"{")])
    wrong("WELCOME is empty", [welcome_(b"")])
    wrong("WELCOME is a list", [welcome_(b"[]")])
    wrong("WELCOME: port is a text", [welcome_(b'{"port":"49300"}')])
    wrong("WELCOME: port is true", [welcome_(b'{"port":true}')])
    wrong("WELCOME: port is 65536", [welcome_(b'{"port":65536}')])
    wrong("WELCOME: port is negative", [welcome_(b'{"port":-1}')])
    wrong("WELCOME: addresses is a number", [welcome_(b'{"port":1,"addresses":5}')])
    wrong("WELCOME: an address is a number", [welcome_(b'{"port":1,"addresses":[5]}')])
    wrong("WELCOME: an address is none", [welcome_(b'{"port":1,"addresses":["host.example"]}')])
    wrong("WELCOME: resumed is a text", [welcome_(b'{"port":1,"resumed":"all"}')])
    wrong("WELCOME is deep", [welcome_(b"[" * 16000)])
    wrong("INDEX begins with a gap", [hello, index_(1, full)])
    wrong("INDEX goes on with a gap", [hello, index_(0, full), index_(2, zero_and_tail)])
    wrong("INDEX goes back", [hello, index_(0, full), index_(0, full)])
    wrong("INDEX-RUN after a gap", [hello, run_(1, 1)])
    wrong("more acknowledged than sent", [hello, ack_(4)])
    stream = make([hello, run_(0, 3, 0), done_(ROOT)])
    whole = stream.bytes()
    add("backward: flipped bit", stream, data=flip(whole, 40), good=0, error=TAMPER)
    add("backward: repeated", stream, data=whole + stream.frames[-1], error=TAMPER)
    forward = Stream([hello, run_(0, 3, 0)], head=CONN)
    forward.direction = "backward"
    add("backward: sealed with the forward key", forward, good=0, error=TAMPER)
    other = make([hello], preamble(carrier=CONNECTION, random=noise("another", 32)))
    add("backward: of another connection", other, expected=CONN, good=0, error=TAMPER)
    for cut in (0, 3, 30, len(stream.frames[0]), len(whole) - 1):
        good = sum(len(b"".join(stream.frames[: n + 1])) <= cut for n in range(3))
        add(f"backward: cut to {cut} bytes", stream, data=whole[:cut], good=good)


def live() -> None:
    """Chunks that are read again while the image is written to."""
    block = b"C" * BLOCK
    late = b"A" * BLOCK + block + bytes(CHUNK - 2 * BLOCK)
    now = late + bytes(CHUNK) + IMG[2 * CHUNK :]
    again = chunk_(0, 0b10, zstd([block]), chunk_digest(late), codec=1, known=1, version=1)
    root = image_digest(now)

    def good(name: str, plains: Sequence[bytes], root: bytes = root) -> None:
        add(f"live: {name}", Stream(plains, head=CONN), outcome="tree1:" + root.hex(), live=True)

    def bad(name: str, plains: Sequence[bytes], outcome: str = IMAGE_ERROR) -> None:
        add(f"live: {name}", Stream(plains, head=CONN), outcome=outcome, live=True)

    good("nothing is read again", WHOLE, ROOT)
    good("a chunk is read again, a block of it is known", [*BODY, again, end_(root, 1)])
    good("a version that was overtaken is dropped", [*BODY, again, C0, again, end_(root, 1)])
    whole = chunk_(0, 3, PACKED, D0, codec=1, version=3)
    good("a lost chunk comes whole, in a higher version", [*BODY, again, whole, end_(ROOT, 3)], ROOT)
    good("the first that comes is not the first version", [BODY[0], whole, *BODY[2:], end_(ROOT, 3)], ROOT)
    good("zeros leave versions alone", [*BODY, again, zeros_(0, 2), end_(root, 1)])
    written = b"D" * BLOCK
    filled = chunk_(1, 1, zstd([written]), chunk_digest(written + bytes(CHUNK - BLOCK)), codec=1, version=1)
    emptied = chunk_(1, 0, b"", D1, version=2)
    good("zeros are written to and become zeros again", [*BODY, filled, emptied, end_(ROOT, 2)], ROOT)
    bad("a version is missing", [*BODY, end_(root, 1)], LINK)
    bad("more versions than END counts", [*BODY, again, end_(root, 0)], PEER)
    bad("END with the digest of before", [*BODY, again, end_(ROOT, 1)])
    bad(
        "a known block that is another there", [*BODY, chunk_(0, 1, zstd([block]), D0, codec=1, known=2, version=1)]
    )


def domain() -> None:
    """A domain's stream, and what is said beside it."""
    stream = [b"Xen saved domain", bytes(70000), noise("pages", 4000), b"\n"]
    zeros = zstd([bytes(BLOCK), bytes(70000 - BLOCK)])
    parts = [image_(0), segment_(0, stream[0]), segment_(1, zeros, 70000, 1), segment_(2, stream[2])]
    last = segment_(3, stream[3])
    digest = sha(b"".join(stream))
    ended = end_(digest, 4)
    told = "sha256:" + digest.hex()

    def good(name: str, plains: Sequence[bytes], outcome: str | None = told, head: bytes = CONN) -> None:
        add(f"domain: {name}", Stream(plains, head=head), outcome=outcome, kind="domain", size=0)

    def bad(name: str, plain: bytes, before: Sequence[bytes] = parts[:2], head: bytes = CONN) -> None:
        frames = Stream([*before, plain], head=head)
        add(f"domain: {name}", frames, good=len(before), error=PEER, kind="domain", size=0)

    good("a whole session", [*parts, last, ended])
    good(
        "out of order, twice, with notes and pings",
        [
            parts[0],
            *parts[:1:-1],
            PING_,
            parts[1],
            parts[2],
            note_(b'{"state":"handing"}'),
            last,
            ended,
            note_(b"{}"),
            PING_,
        ],
    )
    good("nothing at all", [parts[0], end_(sha(b""), 0)], "sha256:" + sha(b"").hex())
    good("data connection", [*parts, last], None, DATA1)
    good("an error, told", [*parts, error_(14, b"gone")], LINK)
    good("END with another digest", [*parts, last, end_(flip(digest, 0), 4)], TAMPER)
    good("a segment is missing", [*parts[:2], *parts[3:], last, ended], LINK)
    good("more segments than END counts", [*parts, last, segment_(4, b"x"), ended], PEER)
    good("a segment beyond the window", [*parts[:2], segment_(129, b"x")], PEER)
    good("a segment that cannot be unpacked", [parts[0], segment_(0, zeros[:-1], 70000, 1)], IMAGE_ERROR)
    good("a segment that unpacks to more", [parts[0], segment_(0, zeros, 69999, 1)], PEER)
    good("a note that is no JSON", [parts[0], note_(b"{")], PEER)
    good("a note that is a list", [parts[0], note_(b"[]")], PEER)
    good("a note of 16384 bytes", [*parts, note_(b'{"x":"' + b"y" * 16376 + b'"}'), last, ended])
    bad("SEGMENT before IMAGE", parts[1], ())
    bad("an image of some size", image_(1), ())
    bad("CHUNK of another kind of session", C0)
    bad("ZEROS of another kind of session", Z1)
    bad("SEGMENT after END", last, [*parts[:1], end_(digest, 4)])  # which waits for four more
    bad("SEGMENT without a payload", segment_(1, b"", 1))
    bad("SEGMENT of nothing", segment_(1, b"x", 0, 1))
    bad("SEGMENT of more than a MiB", segment_(1, b"x", CHUNK + 1, 1))
    bad("SEGMENT: codec 2", segment_(1, b"x", 1, 2))
    bad("SEGMENT: stored, a byte short", segment_(1, b"x", 2))
    bad("SEGMENT of 12 bytes", segment_(1, b"")[:-1])
    bad("NOTE of 16385 bytes", note_(b" " * 16385))
    bad("NOTE is not UTF-8", note_(b"\xff"))
    bad("NOTE on a data connection", note_(b"{}"), head=DATA1)
    bad("ANSWER from the wrong side", answer_(b"x"))

    def back(name: str, plains: Sequence[bytes], good: int | None = None, head: bytes = CONN) -> None:
        frames = Stream(plains, head=head, direction="backward")
        add(
            f"domain, backward: {name}",
            frames,
            good=good,
            error=None if good is None else PEER,
            kind="domain",
            size=0,
        )

    hello = welcome_(b'{"port":0}')
    back(
        "a whole session",
        [hello, answer_(b"ready\n"), ack_(3), note_(b"{}"), PING_, answer_(b"x" * 16384), done_(digest)],
    )
    back("ANSWER of nothing", [hello, answer_(b"")], 1)
    back("ANSWER of 16385 bytes", [hello, answer_(b"x" * 16385)], 1)
    back("ANSWER before WELCOME", [answer_(b"x")], 0)
    back("ANSWER after DONE", [hello, done_(digest), answer_(b"x")], 2)
    back("ANSWER on a data connection", [welcome_(b"{}"), answer_(b"x")], 1, DATA1)
    back("NOTE on a data connection", [welcome_(b"{}"), note_(b"{}")], 1, DATA1)
    back("INDEX-RUN of another kind of session", [hello, run_(0, 1)], 1)
    back("SEGMENT from the wrong side", [hello, parts[1]], 1)


def key_vectors() -> list[dict[str, str]]:
    out = []
    for cipher in LABELS:
        for carrier, number, salt in ((FILE, 0, bytes(32)), (CONNECTION, 0, ACCEPTOR), (CONNECTION, 3, ACCEPTOR)):
            head = preamble(cipher, carrier, number)
            out.append(
                {
                    "secret": SECRET.hex(),
                    "random": salt.hex(),
                    "preamble": head.hex(),
                    "forward": derive(SECRET, salt, "forward", head).hex(),
                    "backward": derive(SECRET, salt, "backward", head).hex(),
                }
            )
    return out


def make() -> str:
    """The whole of vectors.json."""
    VECTORS.clear()
    parts: tuple[Callable[[], None], ...] = (
        good_streams,
        preambles,
        damage,
        after_end,
        orders,
        contents,
        backward,
        live,
        domain,
    )
    for part in parts:
        part()
    names = [vector["name"] for vector in VECTORS]
    assert len(names) == len(set(names)), [name for name in names if names.count(name) > 1]
    rows = ",\n".join(json.dumps(vector) for vector in VECTORS)
    keys = ",\n".join(json.dumps(key) for key in key_vectors())
    return f'{{"format": 1, "keys": [\n{keys}\n],\n"vectors": [\n{rows}\n]}}\n'


if __name__ == "__main__":
    sys.stdout.write(make())
