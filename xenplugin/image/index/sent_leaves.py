"""The leaf of each block that was last sent of a live image, in a temporary file.

Strategy: 512 bytes for each chunk, in a sparse file without a name in the state directory. It is read and written
with pread and pwrite, so memory does not grow with the image, and a full disk is an error, not a signal as with
mmap. The leaf of a zero block is stored as 32 zero bytes, which are the SHA-256 of no known block. So zero chunks
take no space, and where the file has a hole, the far side has only zeros.
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
    """The sent leaves of an image of `chunks` chunks, in a file in `folder`.

    Any thread may call it, but only one at a time for the same chunk. Methods raise ImageError if the file cannot
    be read or written.
    """

    def __init__(self, folder: Path, chunks: int) -> None:
        self._folder = str(folder)
        with os_errors("create a temporary file in", self._folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Never closed explicitly: the descriptor must not be reused while a thread still writes to it.
            self._file = tempfile.TemporaryFile(prefix=".sent-", dir=folder, buffering=0)  # noqa: SIM115
            self._fd = self._file.fileno()
            os.ftruncate(self._fd, chunks * _ROW)

    def compare(self, index: int, mask: int, leaves: bytes) -> int:
        """Return the map of the blocks of chunk `index` that are unchanged since they were sent.

        `leaves` and `mask` (the blocks that are not zero) describe the chunk as it is now.
        """
        with os_errors("read a temporary file in", self._folder):
            row = os.pread(self._fd, _ROW, index * _ROW)
        same = 0
        for bit in range(len(leaves) // LEAF):
            place = slice(bit * LEAF, bit * LEAF + LEAF)
            if row[place] == (leaves[place] if mask >> bit & 1 else _NOTHING):
                same |= 1 << bit
        return same

    def put(self, index: int, mask: int, leaves: bytes) -> None:
        """Record that chunk `index` is sent with these `leaves`, and zeros outside of `mask`."""
        row = b"".join(
            leaves[bit * LEAF : bit * LEAF + LEAF] if mask >> bit & 1 else _NOTHING
            for bit in range(len(leaves) // LEAF)
        )
        with os_errors("write a temporary file in", self._folder):
            if os.pwrite(self._fd, row, index * _ROW) < len(row):
                raise ImageError(f"cannot write a temporary file in {self._folder}: no space left")

    def not_zero(self, first: int, stop: int) -> Iterator[int]:
        """Yield the chunks from `first` to `stop` that may have data at the far side, in order."""
        with os_errors("read a temporary file in", self._folder):
            for begin, end in data_ranges(self._fd, first * _ROW, stop * _ROW, _ROW):
                yield from range(begin // _ROW, end // _ROW)
