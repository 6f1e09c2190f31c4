"""Read an image in another format than raw: what it holds, with its backing files, as QEMU reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

from xenplugin.errors import ImageError
from xenplugin.image.files import os_errors
from xenplugin.image.formats.detect import Found, format_at
from xenplugin.image.formats.inspect import ImageInfo, inspect
from xenplugin.image.formats.kinds import RAW, Format
from xenplugin.image.formats.nbd import NbdExport
from xenplugin.image.formats.node import Node, open_node
from xenplugin.image.source.content_state import Change
from xenplugin.image.source.raw import Source, open_source
from xenplugin.image.sparse import Run


class ExportedSource(Source):
    """An image of which QEMU serves what it holds, as `export`; its holes and zeros are the image's. `file` is
    open, for what else is asked about the file. `format`: how it is stored."""

    def __init__(self, file: Source, export: NbdExport, format: Format) -> None:
        super().__init__(file.fileno(), file.path, export.size, False)
        self.format = format
        self._file = file
        self._export = export

    def taken(self) -> int | None:
        if self.backing or self._file.device:  # of backing files only a part may count
            return None
        return min(self.size, 512 * os.fstat(self.fileno()).st_blocks)

    def runs(self, first: int = 0, stop: int | None = None) -> Iterator[Run]:
        with os_errors("find the data in", self.path):
            yield from self._export.runs(first, self.chunks if stop is None else stop)

    def read_at(self, view: memoryview, offset: int) -> int:
        length = max(0, min(len(view), self.size - offset))
        self._export.read(view[:length], offset)
        return length

    def ahead(self, index: int) -> None:
        """Do nothing: QEMU reads by itself."""

    def close(self) -> None:
        self._fd = -1
        self._export.close()
        self._file.close()


class FormattedSource(ExportedSource):
    """The open content of an image that was inspected as `info`, in `files`."""

    def __init__(self, info: ImageInfo, node: Node, files: list[Source]) -> None:
        super().__init__(files[0], node.export, info.format)
        self.backing = info.backing
        self._node = node
        self._files = files

    @classmethod
    def open(cls, info: ImageInfo, *, shared: bool = False) -> FormattedSource:
        """Open the image that was inspected as `info`; `shared`: others may write it meanwhile. Raises
        RefusedError, ImageError."""
        with ExitStack() as opened:
            files = [opened.enter_context(open_source(path)) for path in info.files]
            node = open_node(info.chain, shared=shared)
            opened.callback(node.close)
            with os_errors("examine", info.files[0]):
                source = cls(info, node, files)
            opened.pop_all()
        return source

    def close(self) -> None:
        with suppress(ImageError):  # it was only read
            self._node.close()
        self._fd = -1
        for file in self._files:
            file.close()

    def change(self) -> Change:
        changes = [file.change() for file in self._files]  # what its own times are means nothing
        for worst in (Change.CHANGED, Change.UNSURE):
            if worst in changes:
                return worst
        return Change.SAME


def open_image(path: str, format: str | None = None, folders: Sequence[str] = ()) -> Source:
    """Open what the image at `path` holds; `format` is QEMU's name of its format, None to find it by its content.
    `folders`: where its backing files may lie, beside its own. Raises RefusedError for what is no image, or cannot
    be moved by its content; ImageError."""
    source = open_source(path)
    try:
        found = format_at(path, source.fileno(), source.size)
    except BaseException:
        source.close()
        raise
    if format == RAW or (format is None and found is None):
        return source
    source.close()
    if format is not None and (found is None or found.name != format):
        found = Found(format)
    assert found is not None
    try:
        return FormattedSource.open(inspect(path, found.name, fixed=found.fixed, folders=folders))
    except ImageError as error:
        if format is None and error.hint is None:
            error.hint = f"its first bytes look like {found.name}: if it is a raw image, give --format raw"
        raise
