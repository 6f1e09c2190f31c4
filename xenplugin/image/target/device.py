"""A block device as target: overwritten in place.

What is on disk at each instant:

1. Before: the device's old content.
2. Opened: the journal, in the state directory, says that the device is incomplete; it is fsynced before the first
   write. The device is claimed (O_EXCL), so nothing else can mount or claim it.
3. While chunks arrive: a mixture of old and new content. All of it may serve as base, because content is read and
   hashed at the moment when it is offered as base. The journal's durable chunks only show the progress.
4. Commit: device flushed, "done" in the journal, journal removed. A device that is given up keeps its journal,
   because its content is neither the old image nor the new one, and `xenplugin status` says so.

Strategy: O_DIRECT, in runs of blocks as long as possible, zeros included, because a hole within a chunk saves
nothing on a disk. Whole zero chunks are punched with fallocate, which makes a device read as zeros and lets a thin
volume free the space.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.chunkset import ChunkSet
from xenplugin.image.files import os_errors, read_at, write_at
from xenplugin.image.safety.in_use import claim_device, refuse_if_used
from xenplugin.image.scan import gaps, nonzero_blocks
from xenplugin.image.source.raw import refuse_partial_sectors
from xenplugin.image.sparse import Run, punch
from xenplugin.image.state_folder import writable
from xenplugin.image.target import journal
from xenplugin.image.target.abstract import Attached, Target, Write, refuse_attached
from xenplugin.image.target.journal import Journal

#: Chunks zeroed by one system call (1 GiB), so that signals are handled in between.
_PUNCH = 1024


class DeviceTarget(Target):
    """An open and claimed block device."""

    def __init__(self, path: str, size: int, fd: int, log: Journal, kept: ChunkSet, *, use_base: bool) -> None:
        super().__init__(path, size, fd, log, kept)
        self.keeps_all = use_base
        self._zeros = Buffer(CHUNK)

    def runs(self, first: int, stop: int) -> Iterator[Run]:
        if first < stop:
            yield Run(first, stop - first, False)

    def read(self, index: int, view: memoryview) -> None:
        if read_at(self.fd, view, index * CHUNK) < len(view):
            raise OSError(errno.EIO, "the device is shorter than when it was opened")

    def write(self, what: Write, scratch: Buffer) -> None:
        view = scratch.view
        at = 0
        for start, stop in what.data:
            view[start:stop] = what.payload[at : at + stop - start]
            at += stop - start
        for start, stop in gaps(sorted((*what.data, *what.keep)), what.length):
            view[start:stop] = self._zeros.view[: stop - start]
        for start, stop in gaps(what.keep, what.length):
            write_at(self.fd, [view[start:stop]], what.offset + start)

    def zeros(self, first: int, count: int, again: bool) -> None:
        stop = first + count
        while first < stop:
            part = min(_PUNCH, stop - first)
            length = min(self.size, (first + part) * CHUNK) - first * CHUNK
            if punch(self.fd, first * CHUNK, length):
                # Check that the kernel did it, at the edges, where it would fail first.
                self._probe_zero({first, first + part - 1})
            else:
                for index in range(first, first + part):
                    size = min(CHUNK, self.size - index * CHUNK)
                    write_at(self.fd, [self._zeros.view[:size]], index * CHUNK)
                    self._probe_zero({index})
            first += part

    def _probe_zero(self, indexes: set[int]) -> None:
        buffer = Buffer(CHUNK)
        for index in indexes:
            size = min(CHUNK, self.size - index * CHUNK)
            self.read(index, buffer.view[:size])
            if nonzero_blocks(buffer, size):
                raise OSError(errno.EIO, "the device does not read as zeros after zeros were written")

    def finish(self, attached: Attached) -> None:
        refuse_attached(attached, self.path)
        self.journal.done()
        self.journal.remove()

    def discard(self) -> None:
        """Leave the journal in place: it shows that the old content is gone."""


def open_device(path: str, size: int, *, state_dir: Path, attached: Attached, use_base: bool) -> DeviceTarget:
    """Claim block device `path` as target of an image of `size` bytes. Raises RefusedError, ImageError."""
    real = os.path.realpath(path)
    refuse_attached(attached, path)
    try:
        fd = claim_device(path, os.O_RDWR | os.O_DIRECT)
    except ImageError as error:
        if not isinstance(error.__cause__, OSError) or error.__cause__.errno != errno.EINVAL:
            raise
        fd = claim_device(path, os.O_RDWR)  # a driver without direct I/O
    log = None
    try:
        refuse_if_used(path, fd, claimed=True)
        with os_errors("examine", path):
            has = os.lseek(fd, 0, os.SEEK_END)
            refuse_partial_sectors(path, fd, has)
        if has != size:
            raise RefusedError(
                f"{path} is {'larger' if has > size else 'too small'}: it has {has} bytes, the image {size}",
                hint="use a device of exactly the image's size, or a file",
            )
        log, kept = _journal(path, real, size, state_dir)
        with os_errors("open", path):
            return DeviceTarget(path, size, fd, log, kept, use_base=use_base)
    except BaseException:
        os.close(fd)
        if log is not None:
            log.close()
        raise


def _journal(path: str, real: str, size: int, state_dir: Path) -> tuple[Journal, ChunkSet]:
    """Open the device's journal: continue an earlier one, even of another path to the device, or create one."""
    writable(state_dir)
    for state in journal.of_devices(state_dir):
        if state.kind == "device" and os.path.realpath(state.target) == real:
            if state.size == size and not state.done:
                return Journal.reopen(state), state.durable
            with os_errors("remove the journal", str(state.path)):
                state.path.unlink()
    log = Journal.create(journal.name_in(state_dir, path), target=path, size=size, kind="device")
    return log, ChunkSet()
