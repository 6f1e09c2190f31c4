"""A domain's memory as libxl and libxc stream it (Xen's docs/specs), made once and kept as a file.

The strategy: what decides how long a migration takes is how many bytes there are and how well they compress. So the
records are those of a live migration (all pages, then what was dirtied, then the rest after the suspension), in
batches of 1024 pages as libxc sends them. The pages are those of a memory that was recorded (record.py), or of four
kinds, in runs, in a fixed random order:

    zero    30 %   never touched, or freed and cleared
    file    40 %   page cache and program text: pages of the disk image that the guest has
    heap    22 %   words of programs: pointers, small numbers, text
    noise    8 %   what is compressed or encrypted already

The same size, image and seed make the same stream. What zstd makes of it is measured and kept with it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import zstandard

from lab.sparse import extents

PAGE = 4096
BATCH = 1024
SHARES = {"zero": 0.30, "file": 0.40, "heap": 0.22, "noise": 0.08}
#: Shares of the pages that are sent again, in each later iteration; the last is sent after the suspension.
DIRTIED = (0.010, 0.004, 0.002)
_RUN = 16  # pages of one kind that lie together
_SAMPLE = 1 << 20
_VERSION = 1
_PAGE_DATA, _END = 1, 0


@dataclass(frozen=True)
class Stream:
    """`suspended`: the byte from which on the guest stands still. `ratio`: what zstd 1 makes of it, in segments of
    1 MiB. Sizes in bytes."""

    path: Path
    memory: int
    size: int
    suspended: int
    sha256: str
    ratio: float


def obtain(folder: Path, memory: int, image: Path, recorded: Path | None, say: Callable[[str], None]) -> Stream:
    """A stream of `memory` bytes of pages, from `folder` or made there: those `recorded`, of so many bytes, or made
    up for a guest with the disk `image`. Raises OSError."""
    path = folder / f"memory-{memory >> 20}m-{(recorded or image).stem}-v{_VERSION}.stream"
    about = path.with_suffix(".json")
    if not about.exists():
        say(f"making the memory of a guest, {memory >> 20} MiB: once")
        with (recorded or image).open("rb", buffering=0) as file:
            chance = random.Random(memory // PAGE)
            pages = _Recorded(file.fileno()) if recorded else _Made(file.fileno(), chance)
            made = _make(path, memory, pages, chance)
        about.write_text(json.dumps({**asdict(made), "path": path.name}) + "\n", encoding="utf-8")
    values = json.loads(about.read_text(encoding="utf-8"))
    return Stream(**{**values, "path": path})


class _Pages(Protocol):
    def take(self, numbers: Sequence[int]) -> bytes:
        """The pages of these numbers."""


def _make(path: Path, memory: int, pages: _Pages, chance: random.Random) -> Stream:
    digest, packed, size, suspended = hashlib.sha256(), 0, 0, 0
    held = bytearray()
    packer = zstandard.ZstdCompressor(level=1)
    new = path.with_suffix(".new")
    with new.open("wb") as out:
        for piece, stopped in _pieces(memory // PAGE, pages, chance):
            if stopped:
                suspended = size
            out.write(piece)
            digest.update(piece)
            size += len(piece)
            held += piece
            while len(held) >= _SAMPLE:
                packed += len(packer.compress(held[:_SAMPLE]))
                del held[:_SAMPLE]
    packed += len(packer.compress(bytes(held)))
    new.rename(path)
    return Stream(path, memory, size, suspended, digest.hexdigest(), round(size / packed, 3))


def _pieces(count: int, pages: _Pages, chance: random.Random) -> Iterator[tuple[bytes, bool]]:
    """The stream, and whether the guest is suspended before this piece."""
    yield b"LibxlFmt" + struct.pack(">II", 2, 0) + _record(1), False
    image_header = struct.pack(">QIIHHI", (1 << 64) - 1, 0x58454E46, 3, 0, 0, 0)
    yield image_header + struct.pack("<IHHII", 2, 12, 0, 4, 17), False
    yield _record(0x10), False
    for number, share in enumerate((1.0, *DIRTIED)):
        wanted = range(count) if share == 1 else sorted(chance.sample(range(count), max(1, int(count * share))))
        last = number == len(DIRTIED)
        for start in range(0, len(wanted), BATCH):
            batch = wanted[start : start + BATCH]
            yield _batch(batch, pages), last and start == 0
    yield _record(0x09, chance.randbytes(8192)), False
    yield _record(0x0A, struct.pack("<II", 0, 0)), False
    yield _record(_END), False
    yield _record(0), False


def _batch(numbers: Sequence[int], pages: _Pages) -> bytes:
    head = struct.pack(f"<II{len(numbers)}Q", len(numbers), 0, *numbers)
    return _record(_PAGE_DATA, head + pages.take(numbers))


def _record(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


class _Recorded:
    """Those of the memory open as `fd`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def take(self, numbers: Sequence[int]) -> bytes:
        return b"".join(os.pread(self._fd, PAGE, number * PAGE) for number in numbers)


class _Made:
    """Pages in runs of a kind; those of files come from the image open as `fd`."""

    def __init__(self, fd: int, chance: random.Random) -> None:
        self._fd = fd
        self._chance = chance
        self._extents = list(extents(fd)) or [(0, PAGE)]
        self._weights = [stop - start for start, stop in self._extents]

    def take(self, numbers: Sequence[int]) -> bytes:
        made = bytearray()
        while len(made) < len(numbers) * PAGE:
            kind = self._chance.choices(list(SHARES), list(SHARES.values()))[0]
            made += getattr(self, f"_{kind}")()
        return bytes(made[: len(numbers) * PAGE])

    def _zero(self) -> bytes:
        return bytes(_RUN * PAGE)

    def _noise(self) -> bytes:
        return self._chance.randbytes(_RUN * PAGE)

    def _file(self) -> bytes:
        start, stop = self._chance.choices(self._extents, self._weights)[0]
        at = self._chance.randrange(start, max(start + 1, stop - _RUN * PAGE)) // PAGE * PAGE
        return os.pread(self._fd, _RUN * PAGE, at).ljust(_RUN * PAGE, b"\0")

    def _heap(self) -> bytes:
        """Half small numbers and nothing, a third pointers into the same gigabyte, the rest text."""
        chance = self._chance
        base = 0x7F0000000000 | chance.getrandbits(10) << 30
        words = []
        for _ in range(_RUN * PAGE // 8):
            kind = chance.random()
            if kind < 0.5:
                words.append(chance.choice((0, 0, 0, 1, 2, 8, 64, chance.getrandbits(12))))
            elif kind < 0.83:
                words.append(base | chance.getrandbits(26) << 4)
            else:
                words.append(int.from_bytes(chance.choices(b"etaoinshrdlucmfwyp _-/.0123456789", k=8), "little"))
        return struct.pack(f"<{len(words)}Q", *words)
