"""Read a raw image file or a block device.

Strategy: files are read through the page cache, and their holes are skipped. Block devices are opened with
O_DIRECT, because Xen's phy: backend bypasses the page cache and a buffered read would return stale pages; they have
no holes. Reads carry their offset (preadv), so any number of threads may read.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from os import PathLike

from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import CHUNK, MAX_IMAGE, PAGE, chunk_count, chunk_length
from xenplugin.image.buffers import Buffer
from xenplugin.image.files import image_error, os_errors, read_at
from xenplugin.image.formats.kinds import Format
from xenplugin.image.formats.qemu import Link
from xenplugin.image.source.content_state import Change, ContentState, has_own_times
from xenplugin.image.sparse import Run, chunk_runs

_BLKSSZGET = 0x1268


def sector_size(fd: int) -> int:
    """Return the bytes of a logical sector of the open block device. Raises OSError."""
    return int.from_bytes(fcntl.ioctl(fd, _BLKSSZGET, bytes(4)), "little")


def refuse_partial_sectors(path: str, fd: int, size: int) -> None:
    """Raise RefusedError for a device whose last bytes direct I/O cannot reach, as some loop devices have them."""
    sector = sector_size(fd)
    if size % sector or sector > PAGE:
        raise RefusedError(
            f"{path} has {size} bytes in sectors of {sector} bytes: some of them cannot be read or written",
            hint="for a loop device: losetup --sector-size 512",
        )


class Source:
    """An open image of `size` bytes, `chunks` chunks; `device`: it is a block device; `format`: how it is stored;
    `backing`: its backing files, each based on the next."""

    format = Format()
    backing: tuple[Link, ...] = ()

    def __init__(self, fd: int, path: str, size: int, device: bool) -> None:
        self.path = path
        self.size = size
        self.device = device
        self._fd = fd
        self._state = ContentState.of(fd, device)
        self.chunks = chunk_count(size)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._fd

    def close(self) -> None:
        """Close the image; may be called more than once. No other thread may be reading."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def taken(self) -> int | None:
        """Return the bytes that a copy of the image takes, if its data has no zeros; None if that is not known, as
        of a device. Raises ImageError."""
        if self.device:
            return None
        data = CHUNK * sum(run.count for run in self.runs() if not run.hole)
        return min(self.size, data, 512 * os.fstat(self._fd).st_blocks)

    def runs(self, first: int = 0, stop: int | None = None) -> Iterator[Run]:
        """Yield all chunks, or those from `first` to `stop`, as runs in order, found lazily. Raises ImageError."""
        stop = self.chunks if stop is None else stop
        if self.device:
            if first < stop:
                yield Run(first, stop - first, False)
            return
        try:
            yield from chunk_runs(self._fd, first, stop)
        except OSError as error:
            raise image_error(error, "find the data in", self.path) from error

    def read(self, index: int, buffer: Buffer) -> memoryview:
        """Read chunk `index` into `buffer` (CHUNK bytes or more) and return its bytes. Any thread may call it.

        Raises ImageError, with the offset, if it cannot be read or the image has become shorter.
        """
        offset = index * CHUNK
        length = chunk_length(self.size, index)
        view = buffer.view[:length]
        got = 0
        try:
            got = self.read_at(view, offset)
        except OSError as error:
            raise image_error(error, "read", self.path, offset) from error
        if got < length:
            raise ImageError(
                f"{self.path} became shorter while it was read: it ends at byte {offset + got}, not {self.size}",
                hint="stop the program that writes to it, or migrate the guest live",
            )
        return view

    def read_at(self, view: memoryview, offset: int) -> int:
        """Fill `view` with what the image has from `offset` (bytes) on. Returns the bytes read, fewer than asked
        for only at its end. Any thread may call it. Raises OSError."""
        return read_at(self._fd, view, offset)

    def ahead(self, index: int) -> None:
        """Ask the kernel to start reading chunk `index` of a file. Does nothing for devices and beyond the end."""
        if not self.device and 0 <= index < self.chunks:
            try:
                os.posix_fadvise(self._fd, index * CHUNK, CHUNK, os.POSIX_FADV_WILLNEED)
            except OSError:  # advice only
                pass

    def change(self) -> Change:
        """Return whether the content changed since the image was opened, without reading it. Raises ImageError."""
        with os_errors("examine", self.path):
            if self.device:  # what other programs have written so far is to count
                os.fsync(self._fd)
            now = ContentState.of(self._fd, self.device)
            return self._state.compare(now, lambda: has_own_times(self._fd))


_REFUSED = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def refuse_kind(path: str, mode: int) -> None:
    """Raise RefusedError unless `mode` is of a regular file or a block device."""
    for test, name in _REFUSED:
        if test(mode):
            raise RefusedError(f"{path} is {name}, not a disk image")


def open_source(path: str | PathLike[str]) -> Source:
    """Open the bytes of an image file or a block device for reading. Raises RefusedError for anything else,
    ImageError if it cannot be opened."""
    name = os.fspath(path)
    with os_errors("open", name):
        refuse_kind(name, os.stat(name).st_mode)  # before open(), which could rewind a tape or wait for a pipe
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        with os_errors("open", name):
            return _source_of(fd, name)
    except BaseException:
        os.close(fd)
        raise


def _source_of(fd: int, name: str) -> Source:
    mode = os.fstat(fd).st_mode
    refuse_kind(name, mode)
    device = stat.S_ISBLK(mode)
    size = os.lseek(fd, 0, os.SEEK_END)
    if device and not size:
        raise RefusedError(f"{name} is a device with no medium in it")
    if size > MAX_IMAGE:
        raise RefusedError(f"{name} is larger than {MAX_IMAGE} bytes, the limit")
    flags = fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_NONBLOCK
    fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    if device:
        refuse_partial_sectors(name, fd, size)
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT)
        except OSError as error:  # a driver without direct I/O: only buffered reads are possible
            if error.errno != errno.EINVAL:
                raise
    return Source(fd, name, size, device)
