"""What the far side was last sent of a live image: the leaf of each block, in a temporary file.

Strategy: 512 bytes a chunk in a sparse file without a name, in the state directory, read and written with pread and
pwrite, so that memory does not grow with the image (and a full disk is an error, not a signal, as it would be with
mmap). The leaf of a block of zeros is stored as 32 zero bytes, which no block has for its SHA-256: chunks of zeros
take no room, and where the file has a hole there are only zeros at the far side.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from xenplugin.errors import ImageError
from xenplugin.geometry import BLOCKS_PER_CHUNK
from xenplugin.image.files import os_errors
from xenplugin.image.index.digest import LEAF
from xenplugin.image.sparse import data_ranges

_ROW = BLOCKS_PER_CHUNK * LEAF
_NOTHING = bytes(LEAF)


class SentLeaves:
    """Of an image of `chunks` chunks. Raises ImageError where its file cannot be written. A chunk is for one thread
    at a time."""

    def __init__(self, folder: Path, chunks: int) -> None:
        self._folder = str(folder)
        with os_errors("make a temporary file in", self._folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Closed with its last user: no thread may write to a number that is another file's by then.
            self._file = tempfile.TemporaryFile(prefix=".sent-", dir=folder, buffering=0)  # noqa: SIM115
            self._fd = self._file.fileno()
            os.ftruncate(self._fd, chunks * _ROW)

    def compare(self, index: int, mask: int, leaves: bytes) -> int:
        """The map of the blocks of chunk `index` that are as they were sent; `mask` says which are not zeros
        now."""
        with os_errors("read a temporary file in", self._folder):
            row = os.pread(self._fd, _ROW, index * _ROW)
        same = 0
        for bit in range(len(leaves) // LEAF):
            place = slice(bit * LEAF, bit * LEAF + LEAF)
            if row[place] == (leaves[place] if mask >> bit & 1 else _NOTHING):
                same |= 1 << bit
        return same

    def put(self, index: int, mask: int, leaves: bytes) -> None:
        """Chunk `index` is sent as this."""
        row = b"".join(
            leaves[bit * LEAF : bit * LEAF + LEAF] if mask >> bit & 1 else _NOTHING
            for bit in range(len(leaves) // LEAF)
        )
        with os_errors("write a temporary file in", self._folder):
            if os.pwrite(self._fd, row, index * _ROW) < len(row):
                raise ImageError(f"cannot write a temporary file in {self._folder}: no space left")

    def not_zero(self, first: int, stop: int) -> Iterator[int]:
        """The chunks from `first` to `stop` that may not be zeros at the far side, in order."""
        with os_errors("read a temporary file in", self._folder):
            for begin, end in data_ranges(self._fd, first * _ROW, stop * _ROW, _ROW):
                yield from range(begin // _ROW, end // _ROW)
