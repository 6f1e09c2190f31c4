"""Forward streams sealed with the right key whose frames break the format's rules."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tests.vectors.by_hand import (
    BLOCK,
    CHUNK,
    CONNECTION,
    END,
    ERROR,
    IMAGE,
    PING_,
    ack_,
    answer_,
    chunk_,
    chunk_digest,
    done_,
    end_,
    error_,
    image_,
    image_digest,
    index_,
    noise,
    note_,
    preamble,
    run_,
    segment_,
    welcome_,
    zeros_,
    zstd,
)
from tests.vectors.vector import (
    BODY,
    C0,
    CONN,
    D0,
    D1,
    D2,
    DATA1,
    IMAGE_ERROR,
    IMG,
    LINK,
    PACKED,
    PEER,
    ROOT,
    SIZE,
    TAIL,
    TAMPER,
    WHOLE,
    Z1,
    Stream,
    Vectors,
    flip,
)


def after_end(vectors: Vectors) -> None:
    """Frames and bytes that follow the END."""
    add = vectors.add
    add("file: a second END", Stream([*WHOLE, end_(ROOT)]), good=5, error=TAMPER)
    add("file: a byte after END", Stream(WHOLE), data=Stream(WHOLE).bytes() + b"\0", error=TAMPER)
    add("file: a length after END", Stream(WHOLE), data=Stream(WHOLE).bytes() + struct.pack(">I", 37), error=TAMPER)
    add("file: a chunk after END", Stream([*WHOLE, C0]), good=5, error=TAMPER)
    add("file: the file twice", Stream(WHOLE), data=Stream(WHOLE).bytes() * 2, error=TAMPER)
    add("control channel: a second END", Stream([*WHOLE, end_(ROOT)], head=CONN), good=5, error=PEER, outcome=None)
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


def orders(vectors: Vectors) -> None:
    """Frames in a forbidden order, from the wrong side, or with fields out of range."""
    add = vectors.add
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
        bad("IMAGE too large", image_((1 << 50) + 1), ())
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


def contents(vectors: Vectors) -> None:
    """Well-formed frames whose payloads, digests or chunks are wrong."""
    add = vectors.add

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
