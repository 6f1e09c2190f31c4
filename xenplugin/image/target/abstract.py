"""The common interface of file and device targets: where an image is written.

Strategy: a target knows how to write bytes, which of its present content may serve as base, and how to commit. It
does not know which chunks are done. Methods that are called for each chunk raise OSError, and the sink adds the
offset to the message; other methods raise ImageError or RefusedError.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from xenplugin.errors import RefusedError
from xenplugin.geometry import CHUNK, chunk_count, chunk_length
from xenplugin.image.buffers import Buffer
from xenplugin.image.chunkset import ChunkSet
from xenplugin.image.files import start_writing
from xenplugin.image.source.raw import Source
from xenplugin.image.sparse import Run
from xenplugin.image.target.journal import Journal

#: Returns the name of the running guest that has the disk at a path attached, or None.
Attached = Callable[[str], str | None]
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Write:
    """How to write one chunk. Ranges are bytes (start, stop) within the chunk, in order.

    `data` is filled from `payload`, `copy` from the old image; `keep` is in place already; the rest is zero.
    `again`: the chunk was written before in this session.
    """

    offset: int
    length: int
    data: Ranges
    payload: memoryview
    copy: Ranges
    keep: Ranges
    again: bool


class Target(ABC):
    """An open target of `size` bytes, `chunks` chunks, at `path`."""

    def __init__(self, path: str, size: int, fd: int, journal: Journal, kept: ChunkSet) -> None:
        self.path = path
        self.size = size
        self.chunks = chunk_count(size)
        self.fd = fd
        self.journal = journal
        #: Chunks that an earlier session made durable in this target.
        self.kept = kept
        #: Whether the present content of every chunk is base (a device).
        self.keeps_all = False
        #: Whether the present content of every chunk that the old image does not have is base (a backing file).
        self.backed = False
        #: The image that will be replaced, if it serves as base; else None.
        self.old: Source | None = None

    @property
    def resumed(self) -> int:
        """The bytes kept from earlier sessions."""
        total = len(self.kept) * CHUNK
        if self.chunks and self.chunks - 1 in self.kept:
            total -= CHUNK - chunk_length(self.size, self.chunks - 1)
        return total

    def keeps(self, index: int) -> bool:
        """Return whether known blocks of chunk `index` are in this target already."""
        return self.keeps_all or index in self.kept or (self.backed and not self.copies(index))

    def copies(self, index: int) -> bool:
        """Return whether known blocks of chunk `index` can be copied from the old image."""
        return self.old is not None and index * CHUNK < self.old.size

    def base_runs(self) -> Iterator[tuple[Run, bool | None]]:
        """Yield all chunks in order, as runs, each with the place of its base.

        True: this target. False: the old image. None: there is no base.
        """
        parts = [(0, self.chunks, True)] if self.keeps_all else self.kept.split(0, self.chunks)
        for first, count, kept in parts:
            stop = first + count
            if kept:
                yield from ((run, True) for run in self.runs(first, stop))
                continue
            known = first
            if self.old is not None:
                known = max(first, min(stop, self.old.chunks))
                yield from ((run, False) for run in self.old.runs(first, known))
            if known < stop and self.backed:
                yield from ((run, True) for run in self.runs(known, stop))
            elif known < stop:
                yield Run(known, stop - known, False), None

    def read_base(self, index: int, here: bool, buffer: Buffer) -> int:
        """Read chunk `index` of the base, from `here` or else from the old image. Returns its length (bytes).

        Behind the end of the old image there are zeros. Raises OSError, ImageError.
        """
        length = chunk_length(self.size, index)
        if here:
            self.read(index, buffer.view[:length])
        elif self.old is not None:
            got = len(self.old.read(index, buffer))
            if got < length:
                buffer.view[got:length] = bytes(length - got)
        return length

    def start_writing(self) -> None:
        """Ask the kernel to start writing, so that sync() has little left to wait for."""
        start_writing(self.fd)

    def sync(self) -> None:
        """Make everything written so far durable.

        Raises OSError; then nothing that was written since the last sync() can be trusted.
        """
        os.fdatasync(self.fd)

    @abstractmethod
    def read(self, index: int, view: memoryview) -> None:
        """Read chunk `index` of the target as it is now into `view`. Raises OSError."""

    @abstractmethod
    def runs(self, first: int, stop: int) -> Iterator[Run]:
        """Yield chunks `first` to `stop` of the target itself, as runs. Raises ImageError."""

    @abstractmethod
    def write(self, what: Write, scratch: Buffer) -> None:
        """Write one chunk. Raises OSError."""

    @abstractmethod
    def zeros(self, first: int, count: int, again: bool) -> None:
        """Make `count` chunks from `first` on zero. `again`: some were written in this session. Raises OSError."""

    @abstractmethod
    def complete(self) -> os.stat_result:
        """Make everything durable, after which nothing is written. Returns the state of the file or device, as it
        is to be found once it has its name. Raises ImageError."""

    @abstractmethod
    def left_zero(self, first: int, count: int) -> None:
        """Note that `count` chunks from `first` on were read as zeros, and are not written."""

    @abstractmethod
    def finish(self, attached: Attached) -> None:
        """Give the complete target its name. Raises RefusedError, ImageError."""

    @abstractmethod
    def discard(self) -> None:
        """Give up: undo what can be undone. Raises ImageError."""

    def close(self) -> None:
        """Close everything and change nothing; may be called more than once."""
        self.journal.close()
        if self.old is not None:
            self.old.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def refuse_attached(attached: Attached, path: str) -> None:
    """Raise RefusedError if a guest has `path` attached."""
    domain = attached(path)
    if domain:
        raise RefusedError(
            f"{path} is attached to guest {domain}", hint="shut the guest down or detach the disk first"
        )
