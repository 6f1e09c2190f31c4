"""Frames into an image: unpack, write, check, and see whether all is there. For connections and files alike.

Several threads write side by side, each with a Hand of its own; connections share a few of them.
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

#: Hands beyond one for each core, that wait for a disk.
_WAITING = 2
_STRIPES = 64


class FrameWriter:
    """The image that is being written to `sink`, which is `live` if chunks come in several versions. `end` is what
    END said, once it came."""

    def __init__(self, sink: Sink | NullSink, *, live: bool = False) -> None:
        self.sink = sink
        self.live = live
        self.digest = ImageDigest(sink.size, live=live)
        self.end: End | None = None
        self.settled = False  #: committed: whatever fails from now on, the image is there
        self._versions = Versions()
        #: Of the chunks, by their number: two versions of one must not be written at once.
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self._counting = threading.Lock()

    def finish(self, end: End) -> None:
        """END came. Raises PeerError."""
        if end.count and not self.live:
            raise PeerError("END counts versions of an image that is not live")
        with self._counting:
            self.end = end
            self._refuse_more()

    @property
    def complete(self) -> bool:
        """Whether END and every chunk are there, each in its last version."""
        return self.end is not None and self.digest.complete and self._versions.total == self.end.count

    def settle(self) -> bytes:
        """Check the whole, make it durable under its name. Returns the image digest. Raises ImageError."""
        root = self.digest.root()
        if self.end is None or root != self.end.digest:
            raise ImageError("the image that arrived is not the one that was sent")
        self.sink.commit()
        self.settled = True
        return root

    def write(self, frame: Chunk, put: Callable[[], None]) -> None:
        """Have chunk `frame` written by `put` unless it is there, as it is or in a higher version."""
        if not self.live:
            # Where its acknowledgement was lost it comes again, and is compared only: what was written and checked
            # first is what the digest covers.
            if frame.version:
                raise PeerError(f"chunk {frame.index} in version {frame.version} of an image that is not live")
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
        """Make the chunks of `run` zeros, as far as none has come in a higher version."""
        if not self.live:
            if run.count > 1 or not self.digest.seen(run.first):
                self.sink.put_zeros(run.first, run.count)
            self.digest.add_zeros(run.first, run.count)
            return
        stripes = self._stripes if run.count > 1 else [self._stripes[run.first % _STRIPES]]
        with ExitStack() as held:
            for stripe in stripes:
                held.enter_context(stripe)
            with self._counting:
                parts = list(self._versions.untouched(run.first, run.count))
            for first, count in parts:
                self.sink.put_zeros(first, count)
                self.digest.add_zeros(first, count)

    def _refuse_more(self) -> None:
        if self.end is not None and self._versions.total > self.end.count:
            raise PeerError("more versions came than END counts")


class PoolWorker:
    """One thread's share of the writing."""

    def __init__(self, writing: FrameWriter) -> None:
        self._writing = writing
        self._unpacker = Unpacker()
        self._scratch = Buffer(CHUNK)

    def write(self, frame: Chunk | Zeros) -> int:
        """Write what `frame` describes. Returns the bytes of data it held. Raises PeerError, ImageError."""
        writing = self._writing
        if isinstance(frame, Zeros):
            writing.write_zeros(frame)
            return 0
        length = 0

        def put() -> None:
            nonlocal length
            length = frame.payload_length(writing.sink.size)
            payload = self._unpacker.unpack(frame.codec, frame.payload, length) if frame.data_map else b""
            update = ChunkUpdate(
                frame.index,
                frame.data_map,
                frame.known_map,
                memoryview(payload),
                frame.digest,
                in_place=frame.version > 0,
            )
            writing.sink.put(update, self._scratch)

        writing.write(frame, put)
        return length


class WriterPool:
    """A few hands for many connections: one for each would have more threads at work than there are cores, and
    each other's buffers driven out of their caches."""

    def __init__(self, writing: FrameWriter) -> None:
        self._free: queue.LifoQueue[PoolWorker] = queue.LifoQueue()
        for _ in range(len(os.sched_getaffinity(0)) + _WAITING):
            self._free.put(PoolWorker(writing))

    def write(self, frame: Chunk | Zeros) -> int:
        """As Hand.write, once a hand is free."""
        hand = self._free.get()
        try:
            return hand.write(frame)
        finally:
            self._free.put(hand)
