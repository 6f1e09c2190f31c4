"""Makes a recorded stream small: what `xl migrate` sends, with a few pages of each record of them.

    python thin.py <recorded >thinned        header and configuration (message 2) are copied as they are

Every record stays, in its place and valid, but PAGE_DATA: each keeps its first KEEP pages at most (those without
data, too), its count and length are rewritten, and of the records between the first and the last few of them only
every EVERY-th stays. What a page holds is not looked at. X86_PV_P2M_FRAMES (PV) may be long and is kept whole: it
belongs to the stream's structure. Xen's verify-stream-v2 accepts what comes out.
"""

from __future__ import annotations

import struct
import sys
from typing import BinaryIO

KEEP, EVERY, ENDS = 1, 40, 2
PAGE, PAGE_DATA = 4096, 1
_NO_DATA = (0xD, 0xE, 0xF)  # types of a page that is only named: broken, allocated only, invalid


def thin(source: BinaryIO, sink: BinaryIO) -> None:
    """One stream; raises ValueError for what is none."""
    header = source.read(48)
    (length,) = struct.unpack("<I", source.read(4)) if header[:8] == b"Xen save" else (None,)
    if length is None:
        raise ValueError("this is not what xl migrate sends")
    sink.write(header + struct.pack("<I", length) + source.read(length))
    opening = source.read(16)
    if opening[:8] != b"LibxlFmt":
        raise ValueError("no libxl stream follows the configuration")
    sink.write(opening)
    while True:
        kind, length, body = record(source)
        sink.write(struct.pack("<II", kind, length) + body)
        if kind == 0:
            break
        if kind == 1:
            image(source, sink)
    sink.write(source.read())  # message 6


def image(source: BinaryIO, sink: BinaryIO) -> None:
    """libxc's part, to its END."""
    sink.write(source.read(24 + 16))
    pages: list[bytes] = []
    while True:
        kind, length, body = record(source)
        if kind == PAGE_DATA:
            pages.append(fewer(body))
            continue
        for number, body_kept in enumerate(pages):
            if number < ENDS or number >= len(pages) - ENDS or number % EVERY == 0:
                sink.write(struct.pack("<II", PAGE_DATA, len(body_kept)) + padded(body_kept))
        pages.clear()
        sink.write(struct.pack("<II", kind, length) + body)
        if kind == 0:
            return


def fewer(body: bytes) -> bytes:
    """A PAGE_DATA record's body with its first KEEP pages."""
    count, reserved = struct.unpack_from("<II", body)
    names = struct.unpack_from(f"<{count}Q", body, 8)
    kept = names[:KEEP]
    data = sum(PAGE for name in kept if (name >> 60) not in _NO_DATA)
    begin = 8 + 8 * count
    return struct.pack(f"<II{len(kept)}Q", len(kept), reserved, *kept) + body[begin : begin + data]


def record(source: BinaryIO) -> tuple[int, int, bytes]:
    """The next record: type, length, body with its padding."""
    head = source.read(8)
    if len(head) < 8:
        raise ValueError("the stream is cut off")
    kind, length = struct.unpack("<II", head)
    body = source.read(-(-length // 8) * 8)
    return kind, length, body


def padded(body: bytes) -> bytes:
    """To a multiple of 8 bytes."""
    return body + bytes(-len(body) % 8)


if __name__ == "__main__":
    thin(sys.stdin.buffer, sys.stdout.buffer)
