"""A small stream of a domain, in the formats of libxl and libxc (Xen's docs/specs), with generated pages.

The memory that matters, the guest's counter, is in the last pages, which are sent after the suspension. The reader
accepts only such streams.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Generator

PAGES = 64
_TAIL = b"counter "


def record(number: int, body: bytes = b"") -> bytes:
    """Return record `number` with its padding."""
    return struct.pack("<II", number, len(body)) + body + bytes(-len(body) % 8)


def pages(count: int, seed: int) -> bytes:
    """Return a PAGE_DATA record of `count` pages, half of them noise."""
    numbers = struct.pack(f"<II{count}Q", count, 0, *range(count))
    data = b"".join(random.Random(seed + i).randbytes(4096) if i % 2 else bytes(4096) for i in range(count))
    return record(1, numbers + data)


def write(
    batches: int, iterations: int, suspend: Callable[[], int], point: Callable[[str], None]
) -> Generator[bytes, None, None]:
    """Yield the stream's pieces. `suspend()` suspends the guest and returns its counter; `point` reports steps."""
    yield b"LibxlFmt" + struct.pack(">II", 2, 0) + record(1)
    yield struct.pack(">QIIHHI", (1 << 64) - 1, 0x58454E46, 3, 0, 0, 0) + struct.pack("<IHHII", 1, 12, 0, 4, 17)
    yield record(0x10)
    for iteration in range(iterations):
        for batch in range(max(1, batches >> iteration)):
            yield pages(PAGES, 1000 * iteration + batch)
        point(f"s.memory{iteration}")
    counter = suspend()
    point("s.suspended")
    yield record(1, _TAIL + b"%d" % counter)
    yield record(0)
    point("s.image")
    yield record(2, b"nothing of an emulator")
    point("s.tail")
    yield record(0)


def read(take: Callable[[int], bytes]) -> int:
    """Read a stream with `take(bytes)` and return its counter. Raises ValueError for anything else."""
    if take(16) != b"LibxlFmt" + struct.pack(">II", 2, 0):
        raise ValueError("not a libxl stream")
    counter = None
    while True:
        number, _ = _record(take)
        if number == 0:
            break
        if number == 1:
            if take(24)[:12] != struct.pack(">QI", (1 << 64) - 1, 0x58454E46):
                raise ValueError("not a libxc image")
            take(16)
            while True:
                inner, body = _record(take)
                if inner == 0:
                    break
                if body.startswith(_TAIL):
                    counter = int(body[len(_TAIL) :])
    if counter is None:
        raise ValueError("the stream has no counter")
    return counter


def _record(take: Callable[[int], bytes]) -> tuple[int, bytes]:
    number, length = struct.unpack("<II", take(8))
    if number > 0x12 or length > 128 << 20:
        raise ValueError(f"a record {number:#x} of {length} bytes")
    return number, take(-(-length // 8) * 8)[:length]
