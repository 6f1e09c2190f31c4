"""Streams that a reader must accept: every frame, every kind of image."""

from __future__ import annotations

from tests.vectors.by_hand import (
    BLOCK,
    CHUNK,
    CONNECTION,
    LABELS,
    PING_,
    chunk_,
    chunk_digest,
    end_,
    error_,
    image_,
    image_digest,
    noise,
    preamble,
    zeros_,
    zstd,
)
from tests.vectors.vector import BODY, C0, C2, CONN, IMAGE_ERROR, PEER, ROOT, TAMPER, WHOLE, Z1, Stream, Vectors


def good_streams(vectors: Vectors) -> None:
    """Every cipher and carrier, and images of all shapes."""
    add = vectors.add
    for cipher, label in LABELS.items():
        add(f"file, {label}", Stream(WHOLE, head=preamble(cipher)))
        add(f"control channel, {label}", Stream(WHOLE, head=preamble(cipher, CONNECTION)))
        data = Stream(BODY, head=preamble(cipher, CONNECTION, 7))
        add(f"data connection, {label}", data, outcome=None)
    add("frames in another order of chunks", Stream([BODY[0], C2, Z1, C0, end_(ROOT)]))
    add("a chunk described twice, the same", Stream([*BODY, C0, Z1, end_(ROOT)], head=CONN))
    late = [BODY[0], C0, end_(ROOT), Z1, C2]  # a connection that was lost had not delivered the last two
    add("control channel: a chunk and zeros after END", Stream(late, head=CONN))
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
