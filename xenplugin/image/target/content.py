"""What is written to a file: its bytes, or, in another format than raw, what QEMU stores for us.

In another format the file is an image that qemu-img made, empty, and QEMU writes what it holds
(image/formats/node). What was flushed there is durable in the image; only when QEMU has closed it is the image
complete by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import CHUNK, PAGE
from xenplugin.image.files import os_errors, read_at, start_writing, write_at
from xenplugin.image.formats.create import create
from xenplugin.image.formats.detect import format_at
from xenplugin.image.formats.inspect import ImageInfo, inspect
from xenplugin.image.formats.kinds import Format
from xenplugin.image.formats.node import Node, open_node
from xenplugin.image.formats.qemu import Link
from xenplugin.image.scan import ZEROS
from xenplugin.image.source.formatted import FormattedSource
from xenplugin.image.source.raw import Source
from xenplugin.image.sparse import Run, chunk_runs, data_ranges, has_data, punch

_ZEROS = memoryview(ZEROS)


class Content:
    """The bytes of the open file `fd`, `size` of them. The descriptor stays the caller's. Methods raise OSError."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size
        # Reading back must not read ahead, which would fill the page cache with the holes that follow.
        with suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)

    def runs(self, first: int, stop: int) -> Iterator[Run]:
        """Yield chunks `first` to `stop` as runs of data and holes."""
        return chunk_runs(self._fd, first, stop)

    def has_data(self, offset: int, length: int) -> bool:
        """Return whether there is anything but a hole in that range."""
        return has_data(self._fd, offset, length)

    def read(self, view: memoryview, offset: int) -> None:
        """Fill `view` with the bytes from `offset` on; behind the end there are zeros."""
        got = read_at(self._fd, view, offset)
        if got < len(view):
            view[got:] = bytes(len(view) - got)

    def write(self, parts: list[memoryview], offset: int) -> None:
        """Write all of `parts`, one after the other, from `offset` on."""
        write_at(self._fd, parts, offset)

    def zero(self, offset: int, length: int) -> None:
        """Make zeros, and a hole where that is possible."""
        # A short last page is freed only if the hole reaches beyond the end of the file.
        rest = -self._size % PAGE if offset + length == self._size else 0
        if punch(self._fd, offset, length + rest):
            return
        # Holes cannot be made here: write zeros over the data.
        for begin, end in data_ranges(self._fd, offset, offset + length):
            for at in range(begin, end, CHUNK):
                write_at(self._fd, [_ZEROS[: end - at]], at)

    def start_writing(self) -> None:
        """Ask the kernel to start writing, so that `sync` has little left to wait for."""
        start_writing(self._fd)

    def sync(self) -> None:
        """Make everything written so far durable."""
        os.fdatasync(self._fd)

    def complete(self) -> None:
        """Make all of it durable, for good; nothing is written after it. Raises ImageError as well."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the content, but not the file; more than once does no harm."""


class NodeContent(Content):
    """What QEMU stores in the open file `fd`."""

    def __init__(self, fd: int, size: int, node: Node) -> None:
        super().__init__(fd, size)
        self._node = node
        self._export = node.export

    def runs(self, first: int, stop: int) -> Iterator[Run]:
        return self._export.runs(first, stop)

    def has_data(self, offset: int, length: int) -> bool:
        return any(True for _ in self._export.data(offset, length))

    def read(self, view: memoryview, offset: int) -> None:
        self._export.read(view, offset)

    def write(self, parts: list[memoryview], offset: int) -> None:
        for part in parts:
            self._export.write(part, offset)
            offset += len(part)

    def zero(self, offset: int, length: int) -> None:
        self._export.zero(offset, length)

    def sync(self) -> None:
        self._export.flush()

    def complete(self) -> None:
        self._export.flush()
        self._node.close()
        os.fsync(self._fd)

    def close(self) -> None:
        with suppress(ImageError):  # what was made durable is durable
            self._node.close()


def holds(path: str, format: Format, size: int, backing: Sequence[Link] = ()) -> bool:
    """Return whether the image `path`, which this program made, has this format and size (bytes), and these backing
    files."""
    with suppress(ImageError, RefusedError):
        info = inspect(path, format.name, fixed=("subformat", "fixed") in format.options, folders=None)
        return (info.format, info.size, info.backing) == (format, size, tuple(backing))
    return False


def open_content(
    path: str, fd: int, format: Format, size: int, *, fresh: bool, backing: Sequence[Link] = ()
) -> Content:
    """Open the content of the file `path`, open as `fd`, in another format than raw, with its `backing` files.
    `fresh`: make it an empty image of `size` bytes before. Raises RefusedError, ImageError."""
    if fresh:
        with os_errors("prepare", path):
            os.ftruncate(fd, 0)
        create(path, format, size, backing[0] if backing else None)
        with os_errors("prepare", path):
            os.fsync(fd)
    return NodeContent(fd, size, open_node([Link(path, format.name), *backing], writable=True))


def info_of(source: Source) -> ImageInfo | None:
    """Return what the image that `source` reads the bytes of is, without its backing files; None if it is raw, or
    cannot be read."""
    with suppress(ImageError, RefusedError):
        found = format_at(source.path, source.fileno(), source.size)
        return inspect(source.path, found.name, fixed=found.fixed, backing=False) if found else None
    return None


def open_old(
    source: Source, format: Format, backing: Sequence[Link] = (), *, shared: bool = False
) -> Source | None:
    """Open the content of the old image that `source` reads the bytes of, as the base of a difference to a new one
    that is stored in `format` and based on `backing`; None if it has another format, or needs other files. For a
    raw one it is the bytes. `shared`: others may write it meanwhile."""
    if format.is_raw:
        return source
    info = info_of(source)
    if info is None or info.format.name != format.name:
        return None
    with suppress(ImageError, RefusedError):
        if backing:
            folders = [os.path.dirname(link.path) for link in backing]
            based = inspect(source.path, format.name, folders=folders)
            info = based if based.backing == tuple(backing) else info
        return FormattedSource.open(info, shared=shared)
    return None
