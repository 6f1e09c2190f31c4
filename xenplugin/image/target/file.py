"""A regular file as target: written beside the old image, renamed over it when complete.

What is on disk at each instant, for a target NAME in directory D:

1. Before: D/NAME, if it exists. It is never written to.
2. Opened: D/.NAME.xenplugin-part, the partial file, empty, with the image's full size and mode 0600, locked, and
   fsynced. Then D/.NAME.xenplugin-journal, which has the partial's inode number; fsynced together with D. A crash
   between the two leaves a partial that no journal refers to: the next copy starts it again from empty.
3. While chunks arrive: the partial has any content. The journal lists chunks, each only after it was durable. To
   resume, the listed chunks are read and hashed again: the journal says what to read, not what it contains.
4. Commit: mode and owner copied from the old image, partial fsynced, "done" in the journal. Then, while nothing can
   open the old image, it is found unused and unchanged, and the partial is renamed to NAME. (A program that opens
   it at that moment waits, and then has a file without a name.) D fsynced, journal removed. A crash before the
   rename leaves state 3 with every chunk durable. A crash after it leaves the new image and a journal without a
   partial, which the next copy removes.

If NAME does not exist, or is empty, because a guest has left and its old disk lies aside (image/old), that disk is
the base of the difference. It is only read.

The partial is locked (flock), so a second copy to the same target is refused.

In another format than raw the partial is an image of QEMU's, which writes its content (image/target/content). What
stands above holds for the content. QEMU closes the partial before it is fsynced for the commit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import BLOCK, CHUNK
from xenplugin.image.beside import journal_name, partial_name
from xenplugin.image.buffers import Buffer
from xenplugin.image.chunkset import ChunkSet
from xenplugin.image.files import os_errors, remove, rename_new, sync_directory
from xenplugin.image.formats.kinds import Format
from xenplugin.image.safety.fixed_name import refuse_fixed_name
from xenplugin.image.safety.in_use import kept_closed, refuse_if_used, refuse_mount_point
from xenplugin.image.scan import ZEROS, data_extents, gaps
from xenplugin.image.source.backing import FoundBacking
from xenplugin.image.source.raw import Source
from xenplugin.image.sparse import Run
from xenplugin.image.target import journal
from xenplugin.image.target.abstract import Attached, Target, Write, refuse_attached
from xenplugin.image.target.content import Content, open_old
from xenplugin.image.target.journal import Journal
from xenplugin.image.target.partial import (
    lock_partial,
    open_left,
    open_replaced,
    prepare,
)

_ZEROS = memoryview(ZEROS)


class FileTarget(Target):
    """The open and locked partial of a file."""

    def __init__(
        self,
        path: str,
        size: int,
        fd: int,
        log: Journal,
        kept: ChunkSet,
        content: Content,
        *,
        folder: int,
        replaced: Source | None,
        left: Source | None,
        old: Source | None,
        backing: FoundBacking | None,
        state_dir: Path,
    ) -> None:
        super().__init__(path, size, fd, log, kept)
        self._content = content
        self._backing = backing
        self.backed = backing is not None
        self._folder = folder  # open already: after the rename nothing may be missing that makes it durable
        self._state_dir = state_dir
        self._fresh = not kept and not self.backed  # all that was not written in this session is a hole
        self._replaced = replaced
        self._replaced_state = os.fstat(replaced.fileno()) if replaced else None
        self._left = left
        self.old = old

    def runs(self, first: int, stop: int) -> Iterator[Run]:
        with os_errors("find the data in", self.path):
            yield from self._content.runs(first, stop)

    def write(self, what: Write, scratch: Buffer) -> None:
        if self.backed and what.copy:
            what = self._copied(what, scratch)
        if what.again or not self._fresh:
            self._clear(what)
        pieces: list[tuple[int, memoryview]] = []
        at = 0
        for start, stop in what.data:
            shift = start - at
            for a, b in data_extents(what.payload, at, at + stop - start):
                pieces.append((a + shift, what.payload[a:b]))
            at += stop - start
        for start, stop in what.copy:
            self._copy(what.offset, start, stop, scratch)
            pieces += [(a, scratch.view[a:b]) for a, b in data_extents(scratch.view, start, stop)]
        if what.copy and what.data:
            pieces.sort(key=lambda piece: piece[0])
        parts: list[memoryview] = []
        begin = end = 0
        for a, part in pieces:
            if parts and a != end:
                self._content.write(parts, what.offset + begin)
                parts = []
            if not parts:
                begin = a
            parts.append(part)
            end = a + len(part)
        self._content.write(parts, what.offset + begin)

    def _copied(self, what: Write, scratch: Buffer) -> Write:
        """Return how to write the chunk if what the backing file has already is not copied from the old image."""
        present = bytearray(what.length)
        self._content.read(memoryview(present), what.offset)
        copy: list[tuple[int, int]] = []
        keep = list(what.keep)
        for start, stop in what.copy:
            self._copy(what.offset, start, stop, scratch)
            for at in range(start, stop, BLOCK):
                end = min(at + BLOCK, stop)
                (keep if scratch.view[at:end].tobytes() == present[at:end] else copy).append((at, end))
        return replace(what, copy=tuple(copy), keep=tuple(sorted(keep)))

    def _copy(self, offset: int, start: int, stop: int, scratch: Buffer) -> None:
        assert self.old is not None
        view = scratch.view[start:stop]
        got = self.old.read_at(view, offset + start)
        if got < len(view):
            view[got:] = bytes(len(view) - got)

    def _clear(self, what: Write) -> None:
        """Make a hole of everything that is not kept, if the chunk has old bytes."""
        if not self._content.has_data(what.offset, what.length):
            return
        for start, stop in gaps(what.keep, what.length):
            self._content.zero(what.offset + start, stop - start)

    def zeros(self, first: int, count: int, again: bool) -> None:
        offset = first * CHUNK
        length = min(self.size, (first + count) * CHUNK) - offset
        if (again or not self._fresh) and self._content.has_data(offset, length):
            self._content.zero(offset, length)

    def left_zero(self, first: int, count: int) -> None:
        """Do nothing: a file's zeros stay zeros."""

    def read(self, index: int, view: memoryview) -> None:
        self._content.read(view, index * CHUNK)

    def start_writing(self) -> None:
        self._content.start_writing()

    def sync(self) -> None:
        self._content.sync()

    def complete(self) -> os.stat_result:
        with os_errors("complete", self.path):
            if (before := self._left or self._replaced) is not None:
                _take_over(before.fileno(), self.fd)
            self._content.complete()
            self._close_old()  # while QEMU has the old image open, it is in use
            return os.fstat(self.fd)

    def finish(self, attached: Attached) -> None:
        part = partial_name(self.path)
        self.journal.done()
        # The checks come last: what takes long is done, and nothing can open the old image before the rename.
        refuse_attached(attached, self.path)
        if self._backing is not None:
            self._backing.refuse_changed()
        if self._replaced is not None:
            with kept_closed(self.path, self._replaced.fileno()):
                self._refuse_changed()
                with os_errors("complete", self.path):
                    os.rename(part, self.path)
        else:
            with os_errors("complete", self.path):
                self._rename_new(part)
        try:
            os.fsync(self._folder)
        except OSError as error:
            raise ImageError(
                f"{self.path} is the new image now, complete, but a power failure may bring the old one back:"
                f" cannot write its folder: {error.strerror}",
                hint="check that file system, then start again",
            ) from error
        with suppress(ImageError):  # it says that the image is complete: the next copy removes it
            self.journal.remove()
        journal.unlink(self._state_dir, self.path)

    def _refuse_changed(self) -> None:
        old, now = self._replaced_state, None
        with os_errors("examine", self.path), suppress(FileNotFoundError):
            now = os.lstat(self.path)
        if old is None or now is None or not os.path.samestat(old, now) or not _same(old, now):
            raise RefusedError(
                f"{self.path} was changed or replaced while the new image was written",
                hint="find out what changed it, then start again",
            )

    def _rename_new(self, part: str) -> None:
        try:
            rename_new(part, self.path)
        except FileExistsError as error:
            raise RefusedError(
                f"{self.path} was created by another program during the copy",
                hint="find out what created it; if you start again, only the difference to it is copied",
            ) from error

    def discard(self) -> None:
        self.journal.remove()
        with os_errors("remove", partial_name(self.path)):
            remove(partial_name(self.path))
            sync_directory(os.path.dirname(self.path))
        journal.unlink(self._state_dir, self.path)

    def close(self) -> None:
        self._content.close()
        self._close_old()
        self.journal.close()
        for opened in (self.fd, self._folder):
            if opened >= 0:
                os.close(opened)
        self.fd = self._folder = -1
        for source in (self._replaced, self._left):
            if source is not None:
                source.close()

    def _close_old(self) -> None:
        if self.old is not None and self.old not in (self._replaced, self._left):
            self.old.close()


def _same(a: os.stat_result, b: os.stat_result) -> bool:
    return (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)


def _take_over(old: int, new: int) -> None:
    """Give `new` the owner, mode and extended attributes (ACL, SELinux label) of `old`, where permitted."""
    status = os.fstat(old)
    try:
        os.fchown(new, status.st_uid, status.st_gid)
    except PermissionError:
        with suppress(PermissionError):
            os.fchown(new, -1, status.st_gid)
    os.fchmod(new, stat.S_IMODE(status.st_mode) & 0o777)
    with suppress(OSError):
        for name in os.listxattr(old):
            with suppress(OSError):
                os.setxattr(new, name, os.getxattr(old, name))


def open_file(
    path: str,
    size: int,
    format: Format,
    backing: FoundBacking | None = None,
    *,
    state_dir: Path,
    attached: Attached,
    use_base: bool,
) -> FileTarget:
    """Open a partial for the file `path` (symbolic links resolved), or continue an existing one. `format`: how the
    image is to be stored; `backing`: what it is to be based on, which stays the caller's.

    Raises RefusedError, ImageError; nothing that it created remains then.
    """
    refuse_attached(attached, path)
    refuse_mount_point(path)
    chain = backing.info.chain if backing else ()
    replaced = open_replaced(path, size, format)
    left: Source | None = None
    old: Source | None = None
    content: Content | None = None
    fd = folder = -1
    created = False
    try:
        fd, created = lock_partial(path, replaced)
        if replaced is not None:
            refuse_if_used(path, replaced.fileno())
        with os_errors("open the folder of", path):
            folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        refuse_fixed_name(path, None if replaced is None else replaced.fileno(), folder)
        if replaced is None or not replaced.size:
            left = open_left(path, state_dir)
        if use_base and (base := left or replaced) is not None:
            old = open_old(base, format, chain)
        log, kept, content = prepare(path, size, format, chain, fd, created)
    except BaseException:
        if created:
            with suppress(OSError):
                remove(partial_name(path))
        for opened in (fd, folder):
            if opened >= 0:
                os.close(opened)
        for source in (replaced, left, old):
            if source is not None:
                source.close()
        raise
    journal.link(state_dir, path, journal_name(path))
    return FileTarget(
        path,
        size,
        fd,
        log,
        kept,
        content,
        folder=folder,
        replaced=replaced,
        left=left,
        old=old,
        backing=backing,
        state_dir=state_dir,
    )
