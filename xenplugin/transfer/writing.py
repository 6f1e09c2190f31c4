"""Frames into an image: unpack, write, check, and see whether all is there. For connections and files alike.

Several threads write side by side, each with a Hand of its own; connections share a few of them.
"""

from __future__ import annotations

import os
import queue

from xenplugin.codec.compress import Unpacker
from xenplugin.errors import ImageError, PeerError
from xenplugin.image.digest import ImageDigest
from xenplugin.image.sink import NullSink, Sink, make_scratch
from xenplugin.wire.frames import Chunk, Zeros

#: Hands beyond one for each core, that wait for a disk.
_WAITING = 2


class Writing:
    """The image that is being written to `sink`. `end` is the digest that END names, once it came."""

    def __init__(self, sink: Sink | NullSink) -> None:
        self.sink = sink
        self.digest = ImageDigest(sink.size)
        self.end: bytes | None = None
        self.settled = False  #: committed: whatever fails from now on, the image is there

    @property
    def complete(self) -> bool:
        """Whether END and every chunk are there."""
        return self.end is not None and self.digest.complete

    def settle(self) -> bytes:
        """Check the whole, make it durable under its name. Returns the image digest. Raises ImageError."""
        root = self.digest.root()
        if root != self.end:
            raise ImageError("the image that arrived is not the one that was sent")
        self.sink.commit()
        self.settled = True
        return root


class Hand:
    """One thread's share of the writing."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._unpacker = Unpacker()
        self._scratch = make_scratch()

    def write(self, frame: Chunk | Zeros) -> int:
        """Write what `frame` describes. Returns the bytes of data it held. Raises PeerError, ImageError."""
        writing = self._writing
        # Where its acknowledgement was lost it comes again, and is compared only: what was written and checked
        # first is what the digest covers.
        if isinstance(frame, Zeros):
            if frame.count > 1 or not writing.digest.seen(frame.first):
                writing.sink.put_zeros(frame.first, frame.count)
            writing.digest.add_zeros(frame.first, frame.count)
            return 0
        length = 0
        if frame.version:
            raise PeerError(f"chunk {frame.index} in version {frame.version} of an image that is not live")
        if not writing.digest.seen(frame.index):
            length = frame.payload_length(writing.sink.size)
            payload = self._unpacker.unpack(frame.codec, frame.payload, length) if frame.data_map else b""
            view = memoryview(payload)
            writing.sink.put(frame.index, frame.data_map, frame.known_map, view, frame.digest, self._scratch)
        writing.digest.add(frame.index, frame.digest)
        return length


class Hands:
    """A few hands for many connections: one for each would have more threads at work than there are cores, and
    each other's buffers driven out of their caches."""

    def __init__(self, writing: Writing) -> None:
        self._free: queue.LifoQueue[Hand] = queue.LifoQueue()
        for _ in range(len(os.sched_getaffinity(0)) + _WAITING):
            self._free.put(Hand(writing))

    def write(self, frame: Chunk | Zeros) -> int:
        """As Hand.write, once a hand is free."""
        hand = self._free.get()
        try:
            return hand.write(frame)
        finally:
            self._free.put(hand)
