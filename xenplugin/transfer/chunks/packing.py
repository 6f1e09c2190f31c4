"""The source's packers: threads that read a chunk, leave out zeros and what the destination has, compress the rest.

There are WORKERS of them: one per core and one more, so that one reads while the others compress. Their frames go
to `put`, which may block: that is how a slow link slows the reading.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from xenplugin.codec.adaptive_level import AdaptiveLevel
from xenplugin.codec.compress import STORE, Packer
from xenplugin.errors import XenpluginError, unexpected
from xenplugin.geometry import CHUNK, chunk_length
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import chunk_digest, leaves
from xenplugin.image.scan import byte_runs, mapped_bytes, nonzero_blocks
from xenplugin.image.source.raw import Source
from xenplugin.transfer.chunks.chunk_tracker import ChunkTracker
from xenplugin.transfer.chunks.plan import Plan
from xenplugin.wire.frames import Chunk, Codec, Zeros

CORES = len(os.sched_getaffinity(0))
WORKERS = CORES + 1


def allocated(source: Source) -> int:
    """Return the bytes of the image that must be read, which are all but a file's holes."""
    return source.size if source.device else min(source.size, os.fstat(source.fileno()).st_blocks * 512)


class Tally:
    """Counts bytes of the image, for progress and the result: `done` were read and packed (holes of a file are not
    read), `data` of these are not zero, `sent` were sent."""

    def __init__(self) -> None:
        self.done = 0
        self.data = 0
        self.sent = 0
        self._lock = threading.Lock()

    def add(self, done: int, data: int, sent: int) -> None:
        """Count more bytes; from any thread."""
        with self._lock:
            self.done += done
            self.data += data
            self.sent += sent


class PackerPool:
    """Packs what `plan` hands out, as `tracker` says, and gives the frames to `put`. `failed` is called with an
    error that ends a worker."""

    def __init__(
        self,
        source: Source,
        plan: Plan,
        tracker: ChunkTracker,
        adaptive: AdaptiveLevel,
        put: Callable[[Chunk | Zeros], None],
        failed: Callable[[XenpluginError], None],
    ) -> None:
        self.tally = Tally()
        self._source = source
        self._plan = plan
        self._tracker = tracker
        self._adaptive = adaptive
        self._put = put
        self._failed = failed
        self._threads: list[threading.Thread] = []

    def start(self, wait: bool = True) -> None:
        """Start the workers, which end when the plan is closed or, unless `wait`, empty."""
        for number in range(WORKERS):
            self._start(f"pack-{number}", wait, True)
        if wait:
            # The others may all be waiting for an index that comes only once something has arrived, and
            # what was on its way may have been lost. A lost chunk's index has come already.
            self._start("pack-lost", wait, False)

    def _start(self, name: str, wait: bool, fresh: bool) -> None:
        thread = threading.Thread(target=self._work, args=(wait, fresh), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def join(self) -> None:
        """Wait until all workers have ended."""
        for thread in self._threads:
            thread.join()

    def _work(self, wait: bool, fresh: bool) -> None:
        buffer = Buffer(CHUNK)
        packer = Packer()
        try:
            while (item := self._plan.take(wait, fresh)) is not None:
                if isinstance(item, Zeros):
                    self._send_zeros(item)
                else:
                    self._send_chunk(item, buffer, packer)
                self._plan.finished()
        except Exception as exc:  # what ends this thread must end the session, not hang it
            self._failed(unexpected(exc))

    def _send_zeros(self, run: Zeros) -> None:
        self._tracker.add_zeros(run)
        self._put(run)

    def _send_chunk(self, index: int, buffer: Buffer, packer: Packer) -> None:
        began = time.thread_time()
        self._source.ahead(index + WORKERS)
        length = chunk_length(self._source.size, index)
        with self._tracker.reading(index):
            view = self._source.read(index, buffer)
            mask = nonzero_blocks(buffer, length)
            if not mask and self._tracker.is_first(index):
                self._send_zeros(Zeros(index, 1))
                self.tally.add(length, 0, 0)
                return
            chunk_leaves = leaves(view, length, mask)
            digest = chunk_digest(chunk_leaves)
            decision = self._tracker.decide(index, mask, chunk_leaves, digest)
        if decision is None:
            return
        data = mask & ~decision.known
        codec, payload = Codec.STORED, b""
        if data:
            pieces = [view[start:stop] for start, stop in byte_runs(data, length)]
            level = self._adaptive.choose()
            whole = pieces[0] if len(pieces) == 1 and level != STORE else b"".join(pieces)
            hashed = time.thread_time()
            codec, packed = packer.pack(whole, level)
            payload = packed if isinstance(packed, bytes) else bytes(packed)
            self._adaptive.packed(level, len(whole), len(payload), time.thread_time() - hashed, hashed - began)
        self._put(Chunk(index, codec, data, decision.known, digest, payload, decision.version))
        sent = mapped_bytes(data, length)
        if decision.fresh:
            self.tally.add(length, mapped_bytes(mask, length), sent)
        else:
            self.tally.add(0, 0, sent)
