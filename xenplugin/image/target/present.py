"""What a target has already: read-only, without a lock, a journal or any trace on disk.

The base is the one that a transfer to the same path would have (target/file.py, target/device.py): what an
interrupted transfer left, the present file or device, or the old disk that lies aside. It may be in use meanwhile,
so what is read is true of one moment only.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import ExitStack, suppress
from pathlib import Path

from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import CHUNK, chunk_count, chunk_length
from xenplugin.image.beside import journal_name, partial_name
from xenplugin.image.buffers import Buffer
from xenplugin.image.chunkset import ChunkSet
from xenplugin.image.files import os_errors
from xenplugin.image.formats.kinds import Format
from xenplugin.image.old import old_disk
from xenplugin.image.source.backing import FoundBacking
from xenplugin.image.source.formatted import FormattedSource
from xenplugin.image.source.raw import Source, open_source
from xenplugin.image.target import journal
from xenplugin.image.target.base_index import IndexItem, IndexNone, described
from xenplugin.image.target.content import open_old
from xenplugin.image.target.partial import open_left

RAW_FORMAT = Format()


class PresentContent:
    """What could serve as base of an image of `size` bytes that a file at `path` would store in `format`, based on
    `backing`, which is closed here. Opened read-only; close it. For one thread at a time. Raises RefusedError or
    ImageError if what is at the path cannot be read."""

    def __init__(
        self,
        path: str,
        size: int,
        state_dir: Path,
        format: Format = RAW_FORMAT,
        backing: FoundBacking | None = None,
    ) -> None:
        self._size = size
        self._buffer = Buffer(CHUNK)
        self._kept = ChunkSet()
        self._opened = ExitStack()
        self._chain = backing.info.chain if backing else ()
        if backing is not None:
            self._opened.callback(backing.close)
        self._partial: Source | None = None
        real = os.path.realpath(path)
        with os_errors("examine", path):
            try:
                mode = os.stat(real).st_mode
            except FileNotFoundError:
                mode = 0
        device = stat.S_ISBLK(mode)
        self._format = RAW_FORMAT if device else format
        try:
            found = self._read(open_source(real)) if mode else None
            if not device:
                if found is None or not found.size:
                    found = self._read(left) if (left := open_left(real, state_dir)) is not None else found
                self._open_partial(real)
            #: Whether there is a base that is not read: an old volume that lies aside has no device.
            self.hidden = found is None and _has_left_volume(path, state_dir)
            self._old = self._content(found)
            if self._old is None and backing is not None:
                self._old = self._opened.enter_context(FormattedSource.open(backing.info, shared=True))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> PresentContent:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open; may be called more than once."""
        self._opened.close()

    def describe(self, index: int) -> IndexItem:
        """Return what there is of chunk `index`; what cannot be read counts as nothing."""
        length = chunk_length(self._size, index)
        source = self._partial if index in self._kept else self._old
        if source is None or index >= source.chunks:
            return IndexNone(index, 1)
        try:
            got = len(source.read(index, self._buffer))
        except ImageError:
            return IndexNone(index, 1)
        if got < length:
            self._buffer.view[got:length] = bytes(length - got)
        return described(index, self._buffer, length)

    def has(self, index: int) -> bool:
        """Return whether the image has a chunk `index`."""
        return 0 <= index < chunk_count(self._size)

    def _read(self, source: Source) -> Source:
        """Have the bytes of `source` closed in the end, and its access time stay as it is, where its owner or root
        asks for that."""
        self._opened.callback(source.close)
        with suppress(OSError):
            flags = fcntl.fcntl(source.fileno(), fcntl.F_GETFL)
            fcntl.fcntl(source.fileno(), fcntl.F_SETFL, flags | os.O_NOATIME)
        return source

    def _content(self, found: Source | None) -> Source | None:
        """Return what an image holds; None if it is stored in another format than the new one would be."""
        content = open_old(found, self._format, self._chain, shared=True) if found is not None else None
        if content is not None and content is not found:
            self._opened.callback(content.close)
        return content

    def _open_partial(self, real: str) -> None:
        """Use what an interrupted transfer has left, if it can be continued."""
        with suppress(ImageError, RefusedError):
            state = journal.read(journal_name(real))
            kind = "file" if self._format.is_raw else "image"
            if state is None or (state.kind, state.size) != (kind, self._size):
                return
            partial = self._read(open_source(partial_name(real)))
            content = self._content(partial) if os.fstat(partial.fileno()).st_ino == state.inode else None
            if content is not None and content.size == self._size:
                self._partial, self._kept = content, state.durable


def _has_left_volume(path: str, state_dir: Path) -> bool:
    """Return whether an old volume that had the name `path` lies aside: a transfer would give it its name back."""
    with suppress(ImageError):
        return any(
            old.storage == old_disk.VOLUME and old.aside != old.path for old in old_disk.those_of(state_dir, path)
        )
    return False
