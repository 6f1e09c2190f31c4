"""Write an image to standard output, in order: each chunk is checked before its first byte is written.

What was written before an error is found stays written; only the exit code says that the image is whole.
"""

from __future__ import annotations

from xenplugin.errors import RefusedError
from xenplugin.geometry import CHUNK, chunk_length
from xenplugin.image.buffers import Buffer
from xenplugin.image.files import os_errors
from xenplugin.image.scan import byte_runs
from xenplugin.image.standard_streams import OUTPUT, StandardOutput
from xenplugin.image.target.chunk_update import ChunkUpdate
from xenplugin.image.target.null_sink import NullSink


class StreamSink(NullSink):
    """A sink for an image of `size` bytes that goes to `output`; for one thread. Chunks that are not in order are
    refused, because what came too early cannot be kept."""

    def __init__(self, size: int, output: StandardOutput) -> None:
        super().__init__(size)
        self._output = output
        self._next = 0

    def put(self, update: ChunkUpdate, scratch: Buffer) -> None:
        """Check a chunk and write it. Raises PeerError, ImageError, RefusedError."""
        super().put(update, scratch)
        self._expect(update.index)
        at = done = 0
        with os_errors("write", OUTPUT):
            for start, stop in byte_runs(update.data_map, chunk_length(self.size, update.index)):
                self._output.zeros(start - at)
                self._output.write_all(update.payload[done : done + stop - start])
                at, done = stop, done + stop - start
            self._output.zeros(chunk_length(self.size, update.index) - at)
        self._next += 1

    def put_zeros(self, first: int, count: int) -> None:
        """Write `count` zero chunks from `first` on, unless they were written before. Raises as `put`."""
        super().put_zeros(first, count)
        if first + count <= self._next:
            return
        self._expect(first)
        with os_errors("write", OUTPUT):
            self._output.zeros(min(self.size, (first + count) * CHUNK) - first * CHUNK)
        self._next += count

    def commit(self) -> None:
        """Make the image durable, if it went to a file. Raises ImageError."""
        with os_errors("write", OUTPUT):
            self._output.commit()

    def _expect(self, index: int) -> None:
        if index != self._next:
            raise RefusedError(
                f"chunk {index} of the image comes before chunk {self._next}: it cannot be written to {OUTPUT}",
                hint="open it into a file",
            )
