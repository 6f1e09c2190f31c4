"""A block device as target: overwritten in place.

What is on disk at each instant:

1. Before: the device's old content.
2. Opened: the journal, in the state directory, says that the device is incomplete; it is fsynced before the first
   write. The device is claimed (O_EXCL), so nothing else can mount or claim it.
3. While chunks arrive: a mixture of old and new content. All of it may serve as base, because content is read and
   hashed at the moment when it is offered as base. The journal's durable chunks only show the progress.
4. Commit: the rest of a larger device made zero, if that is wanted; device flushed, "done" in the journal, journal
   removed. A device that is given up keeps its journal, because its content is neither the old image nor the new
   one, and `xenplugin status` says so.

Strategy: O_DIRECT, in runs of blocks as long as possible. Runs of zero chunks are punched with fallocate, which
makes a device read as zeros and lets it free the space. A device that cannot do that is read, and zeros are written
only where it is not zero, so that a thin volume does not grow (target/allocation.py). The same is done for zero
blocks within a chunk, but not on a device that cannot free space: one long write is quicker there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from xenplugin.errors import ImageError
from xenplugin.geometry import CHUNK, chunk_length
from xenplugin.image.buffers import Buffer
from xenplugin.image.chunkset import ChunkSet
from xenplugin.image.files import os_errors, read_at, write_at
from xenplugin.image.safety.in_use import claim_device, refuse_if_used
from xenplugin.image.scan import byte_runs, gaps, nonzero_blocks
from xenplugin.image.source.raw import refuse_partial_sectors, sector_size
from xenplugin.image.sparse import Run, punch
from xenplugin.image.state_folder import writable
from xenplugin.image.target import journal
from xenplugin.image.target.abstract import Attached, Target, Write, refuse_attached
from xenplugin.image.target.allocation import Allocation
from xenplugin.image.target.device_size import ZERO, refuse_size
from xenplugin.image.target.journal import Journal

#: Bytes zeroed by one system call, so that signals are handled in between.
_PUNCH = 1024 * CHUNK


class DeviceTarget(Target):
    """An open and claimed block device."""

    def __init__(
        self, path: str, size: int, fd: int, log: Journal, kept: ChunkSet, *, use_base: bool, zero_to: int
    ) -> None:
        super().__init__(path, size, fd, log, kept)
        self.keeps_all = use_base
        self._zeros = Buffer(CHUNK)
        self._zero_to = zero_to
        self._allocation = Allocation.of(os.fstat(fd).st_rdev)
        self._lock = threading.Lock()
        self._left = ChunkSet()  #: zero chunks that were read as zeros and not written; only where that may change

    def runs(self, first: int, stop: int) -> Iterator[Run]:
        if first < stop:
            yield Run(first, stop - first, False)

    def read(self, index: int, view: memoryview) -> None:
        self._read_at(index * CHUNK, view)

    def _read_at(self, offset: int, view: memoryview) -> None:
        if read_at(self.fd, view, offset) < len(view):
            raise OSError(errno.EIO, "the device is shorter than when it was opened")

    def write(self, what: Write, scratch: Buffer) -> None:
        view = scratch.view
        at = 0
        for start, stop in what.data:
            view[start:stop] = what.payload[at : at + stop - start]
            at += stop - start
        blank = list(gaps(sorted((*what.data, *what.keep)), what.length))
        kept = what.keep
        if self._allocation.sparse:
            kept = tuple(sorted((*kept, *blank)))
        for start, stop in blank:
            view[start:stop] = self._zeros.view[: stop - start]
        for start, stop in gaps(kept, what.length):
            write_at(self.fd, [view[start:stop]], what.offset + start)
        if self._allocation.sparse:  # after the data: what a write brought back is overwritten as well
            for start, stop in blank:
                self._make_zero(what.offset + start, stop - start, scratch)
        with self._lock:
            self._left.discard(what.offset // CHUNK, 1)

    def zeros(self, first: int, count: int, again: bool) -> None:
        stop = min(self.size, (first + count) * CHUNK)
        self._zero(first * CHUNK, stop, lambda offset: self.left_zero(offset // CHUNK, 1))

    def _zero(self, begin: int, end: int, left: Callable[[int], None]) -> None:
        """Make the bytes `begin` to `end` zero. `left` is called for each CHUNK of them that was zero and is left
        alone, with its offset. Raises OSError."""
        buffer = Buffer(CHUNK)
        for start in range(begin, end, _PUNCH):
            stop = min(start + _PUNCH, end)
            if punch(self.fd, start, stop - start):
                # Check that the kernel did it, at the edges, where it would fail first.
                for offset in {start, stop - 1 - (stop - 1 - start) % CHUNK}:
                    self._probe_zero(offset, min(CHUNK, stop - offset), buffer)
                continue
            for offset in range(start, stop, CHUNK):
                length = min(CHUNK, stop - offset)
                if self._make_zero(offset, length, buffer):
                    self._probe_zero(offset, length, buffer)
                else:
                    left(offset)

    def left_zero(self, first: int, count: int) -> None:
        if self._allocation.reach:
            with self._lock:
                self._left.add(first, count)

    def _make_zero(self, offset: int, length: int, buffer: Buffer) -> bool:
        """Write zeros over what is not zero in the `length` bytes (at most CHUNK) at `offset`, which are read into
        `buffer`. Returns whether there was anything. Raises OSError."""
        self._read_at(offset, buffer.view[:length])
        mask = nonzero_blocks(buffer, length)
        for start, stop in byte_runs(mask, length):
            write_at(self.fd, [self._zeros.view[: stop - start]], offset + start)
        return bool(mask)

    def _probe_zero(self, offset: int, length: int, buffer: Buffer) -> None:
        self._read_at(offset, buffer.view[:length])
        if nonzero_blocks(buffer, length):
            raise OSError(errno.EIO, "the device does not read as zeros after zeros were written")

    def complete(self) -> os.stat_result:
        with os_errors("examine", self.path):
            return os.fstat(self.fd)

    def finish(self, attached: Attached) -> None:
        with os_errors("write zeros to", self.path):
            self._check_left()
            if self._zero_to > self.size:
                self._zero(self.size, self._zero_to, lambda _: None)
                self.sync()
        # The claim keeps off what claims a device as well. Guests, QEMU and dd do not: look for them again.
        refuse_attached(attached, self.path)
        refuse_if_used(self.path, self.fd, claimed=True)
        self.journal.done()
        self.journal.remove()

    def _check_left(self) -> None:
        """Look once more at zeros that were not written, where writing to other chunks may have changed them.
        Raises OSError."""
        buffer = Buffer(CHUNK)
        changed = False
        for first, count in self._left.runs():
            reach = min(self._allocation.reach, count)
            for index in {*range(first, first + reach), *range(first + count - reach, first + count)}:
                changed |= self._make_zero(index * CHUNK, chunk_length(self.size, index), buffer)
        if changed:
            self.sync()

    def discard(self) -> None:
        """Leave the journal in place: it shows that the old content is gone."""


def open_device(
    path: str, size: int, *, state_dir: Path, attached: Attached, use_base: bool, larger_device: str
) -> DeviceTarget:
    """Claim block device `path` as target of an image of `size` bytes. `larger_device`: one of LARGER_DEVICE.
    Raises RefusedError, ImageError."""
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
            if size % sector_size(fd):  # the image ends within a sector: only buffered I/O can keep its rest
                fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_DIRECT)
        refuse_size(path, has, size, larger_device)
        log, kept = _journal(path, real, size, state_dir)
        with os_errors("open", path):
            zero_to = has if larger_device == ZERO else size
            return DeviceTarget(path, size, fd, log, kept, use_base=use_base, zero_to=zero_to)
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
