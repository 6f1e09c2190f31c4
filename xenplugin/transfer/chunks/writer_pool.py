"""Writes frames into an image: decompresses and writes them, and checks that all have arrived.

Several threads write side by side, each with a PoolWorker of its own; connections share a few of them.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from contextlib import ExitStack

from xenplugin.codec.compress import Unpacker
from xenplugin.errors import ImageError, PeerError
from xenplugin.geometry import CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import ImageDigest
from xenplugin.image.index.versions import Versions
from xenplugin.image.target.chunk_update import ChunkUpdate
from xenplugin.image.target.null_sink import NullSink
from xenplugin.image.target.sink import Sink
from xenplugin.wire.frames import Chunk, End, Zeros

#: Workers beyond one for each core: while these wait for a disk, the others have work.
_WAITING = 2
_STRIPES = 64


class FrameWriter:
    """Writes an image to `sink`; thread-safe. `live`: chunks come in several versions. `end`: the END frame, once
    it has arrived."""

    def __init__(self, sink: Sink | NullSink, *, live: bool = False) -> None:
        self.sink = sink
        self.live = live
        self.digest = ImageDigest(sink.size, live=live)
        self.end: End | None = None
        self.verified = False  #: the image has arrived, and is the one that was sent
        self.committed = False  #: the image is there, whatever fails from now on
        self._versions = Versions()
        #: Locks of the chunks, by number: two versions of one must not be written at once.
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self._counting = threading.Lock()

    def finish(self, end: End) -> None:
        """Note that END has arrived. Raises PeerError."""
        if end.count and not self.live:
            raise PeerError("END counts versions, but the image is not live")
        with self._counting:
            self.end = end
            self._refuse_more()

    @property
    def complete(self) -> bool:
        """Whether END has arrived, and every chunk in its last version."""
        return self.end is not None and self.digest.complete and self._versions.total == self.end.count

    def commit(self) -> bytes:
        """Check the whole image and make it durable under its name. Returns the image digest. Raises ImageError."""
        root = self.digest.root()
        if self.end is None or root != self.end.digest:
            raise ImageError("the image that arrived is not the one that was sent")
        self.verified = True
        self.sink.commit()
        self.committed = True
        return root

    def write(self, frame: Chunk, put: Callable[[], None]) -> None:
        """Have chunk `frame` written by `put`, unless it has been written in this version or a higher one."""
        if not self.live:
            # A chunk whose acknowledgement was lost comes again, and is only compared: the digest covers what was
            # written and checked first.
            if frame.version:
                raise PeerError(f"chunk {frame.index} has version {frame.version}, but the image is not live")
            if not self.digest.seen(frame.index):
                put()
            self.digest.add(frame.index, frame.digest)
            return
        with self._stripes[frame.index % _STRIPES]:
            if self.digest.seen(frame.index) and frame.version <= self._versions[frame.index]:
                return
            put()
            with self._counting:
                self.digest.replace(frame.index, frame.digest)
                self._versions[frame.index] = frame.version
                self._refuse_more()

    def write_zeros(self, run: Zeros) -> None:
        """Make the chunks of `run` zeros, except those that have come in a higher version."""
        if not self.live:
            for first, count in self.digest.unseen(run.first, run.count):
                self.sink.put_zeros(first, count)
            self.digest.add_zeros(run.first, run.count)
            return
        stripes = self._stripes if run.count > 1 else [self._stripes[run.first % _STRIPES]]
        with ExitStack() as held:
            for stripe in stripes:
                held.enter_context(stripe)
            with self._counting:
                parts = list(self._versions.untouched(run.first, run.count))
            for first, count in parts:
                for begin, n in self.digest.unseen(first, count):
                    self.sink.put_zeros(begin, n)
                self.digest.add_zeros(first, count)

    def _refuse_more(self) -> None:
        if self.end is not None and self._versions.total > self.end.count:
            raise PeerError("more versions came than END counts")


class PoolWorker:
    """Buffers and decompressor of one thread that writes through `writer`."""

    def __init__(self, writer: FrameWriter) -> None:
        self._writer = writer
        self._unpacker = Unpacker()
        self._scratch = Buffer(CHUNK)

    def write(self, frame: Chunk | Zeros) -> int:
        """Write what `frame` describes. Returns the bytes of data it held. Raises PeerError, ImageError."""
        writer = self._writer
        if isinstance(frame, Zeros):
            writer.write_zeros(frame)
            return 0
        length = 0

        def put() -> None:
            nonlocal length
            length = frame.payload_length(writer.sink.size)
            payload = self._unpacker.unpack(frame.codec, frame.payload, length) if frame.data_map else b""
            update = ChunkUpdate(
                frame.index,
                frame.data_map,
                frame.known_map,
                memoryview(payload),
                frame.digest,
                in_place=frame.version > 0,
            )
            writer.sink.put(update, self._scratch)

        writer.write(frame, put)
        return length


class WriterPool:
    """A few workers for many connections. One worker for each would put more threads to work than there are cores,
    and they would drive each other's buffers out of the caches."""

    def __init__(self, writer: FrameWriter) -> None:
        self._free: queue.LifoQueue[PoolWorker] = queue.LifoQueue()
        for _ in range(len(os.sched_getaffinity(0)) + _WAITING):
            self._free.put(PoolWorker(writer))

    def write(self, frame: Chunk | Zeros) -> int:
        """As PoolWorker.write, once a worker is free."""
        worker = self._free.get()
        try:
            return worker.write(frame)
        finally:
            self._free.put(worker)
