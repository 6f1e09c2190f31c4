"""Images that change while they are sent: chunks that come again in higher versions."""

from __future__ import annotations

from collections.abc import Sequence

from tests.vectors.by_hand import BLOCK, CHUNK, chunk_, chunk_digest, end_, image_digest, zeros_, zstd
from tests.vectors.vector import (
    BODY,
    C0,
    CONN,
    D0,
    D1,
    IMAGE_ERROR,
    IMG,
    LINK,
    PACKED,
    PEER,
    ROOT,
    WHOLE,
    Stream,
    Vectors,
)


def live(vectors: Vectors) -> None:
    """Chunks that are read again while the image is written to."""
    add = vectors.add
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
