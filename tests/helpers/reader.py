"""Bytes into a wire.session.Reader, as from a socket."""

from __future__ import annotations

from collections.abc import Iterator

from xenplugin.wire.body import Buffer
from xenplugin.wire.frames import Frame
from xenplugin.wire.session import Reader


def read_frames(reader: Reader, data: Buffer) -> Iterator[Frame]:
    """Put `data` into the reader's buffer, in as many pieces as it asks for; yield the frames."""
    view = memoryview(data)
    while len(view):
        space = reader.space()
        count = min(len(space), len(view))
        space[:count] = view[:count]
        space.release()
        view = view[count:]
        yield from reader.advance(count)
