"""Where an image is written: what a sink needs of a file and of a block device alike.

Strategy: a target knows how bytes get to their place, what of its present content may serve as base, and how it
is made final; it does not know which chunks are done. Its methods raise OSError where they are called for each
chunk (the sink words the error, it knows the offset) and ImageError or RefusedError elsewhere.
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
from xenplugin.image.files import read_at, start_writing
from xenplugin.image.source.raw import Source
from xenplugin.image.sparse import Run
from xenplugin.image.target.journal import Journal

#: Says which running guest has a disk attached: the name of its domain, or None.
Attached = Callable[[str], str | None]
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Write:
    """How one chunk comes about; ranges are bytes (start, stop) within the chunk, in order.

    `data` is filled from `payload`, `copy` from the old image, `keep` is right already, the rest is zero.
    `again`: it was written before in this session.
    """

    offset: int
    length: int
    data: Ranges
    payload: memoryview
    copy: Ranges
    keep: Ranges
    again: bool


class Target(ABC):
    """An open target of `size` bytes at `path`."""

    def __init__(self, path: str, size: int, fd: int, journal: Journal, kept: ChunkSet) -> None:
        self.path = path
        self.size = size
        self.chunks = chunk_count(size)
        self.fd = fd
        self.journal = journal
        #: Chunks that an earlier session made durable here.
        self.kept = kept
        #: Every chunk's present content is base (a device).
        self.keeps_all = False
        #: The image that will be replaced, if it serves as base.
        self.old: Source | None = None

    @property
    def resumed(self) -> int:
        """Bytes of earlier sessions that were kept."""
        total = len(self.kept) * CHUNK
        if self.chunks and self.chunks - 1 in self.kept:
            total -= CHUNK - chunk_length(self.size, self.chunks - 1)
        return total

    def keeps(self, index: int) -> bool:
        """Whether known blocks of chunk `index` are in their place already."""
        return self.keeps_all or index in self.kept

    def copies(self, index: int) -> bool:
        """Whether known blocks of chunk `index` can be had from the old image."""
        return self.old is not None and index * CHUNK < self.old.size

    def base_runs(self) -> Iterator[tuple[Run, bool | None]]:
        """All chunks in order, as runs with where their base is: True here, False the old image, None nowhere."""
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
            if known < stop:
                yield Run(known, stop - known, False), None

    def read_base(self, index: int, here: bool, buffer: Buffer) -> int:
        """Read what chunk `index` is in the base; returns its length. Where an old image ends, zeros follow.

        Raises OSError, ImageError.
        """
        length = chunk_length(self.size, index)
        if here:
            self.read(index, buffer.view[:length])
        elif self.old is not None:
            got = len(self.old.read(index, buffer))
            if got < length:
                buffer.view[got:length] = bytes(length - got)
        return length

    def read(self, index: int, view: memoryview) -> None:
        """Read chunk `index` of the target as it is now. Raises OSError."""
        got = read_at(self.fd, view, index * CHUNK)
        if got < len(view):
            view[got:] = bytes(len(view) - got)

    def start_writing(self) -> None:
        """Have the kernel begin to write what waits in memory, so that sync() finds little left."""
        start_writing(self.fd)

    def sync(self) -> None:
        """Make what was written durable. Raises OSError; then nothing written since the last one can be trusted."""
        os.fdatasync(self.fd)

    @abstractmethod
    def runs(self, first: int, stop: int) -> Iterator[Run]:
        """Chunks `first` to `stop` of the target itself. Raises ImageError."""

    @abstractmethod
    def write(self, what: Write, scratch: Buffer) -> None:
        """Write one chunk. Raises OSError."""

    @abstractmethod
    def zeros(self, first: int, count: int, again: bool) -> None:
        """Make `count` chunks from `first` on zero; `again`: some were written in this session. Raises OSError."""

    @abstractmethod
    def finish(self, attached: Attached) -> None:
        """Everything is written and durable: make it the image. Raises RefusedError, ImageError."""

    @abstractmethod
    def discard(self) -> None:
        """Undo what can be undone. Raises ImageError."""

    def close(self) -> None:
        """Close everything, change nothing. More than once does no harm."""
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
