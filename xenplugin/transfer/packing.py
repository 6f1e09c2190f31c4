"""The source's workers: read a chunk, drop its zeros and what the far side has, compress the rest.

WORKERS: one per core and one more, so that one reads while the others compress. What they make goes to
`put`, which may block: that is how a slow link slows the reading.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from xenplugin.codec.adaptive_level import AdaptiveLevel
from xenplugin.codec.compress import STORE, Packer
from xenplugin.errors import ImageError, XenpluginError
from xenplugin.geometry import CHUNK, chunk_length
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import ImageDigest, chunk_digest, leaves
from xenplugin.image.scan import byte_runs, mapped_bytes, nonzero_blocks
from xenplugin.image.source.raw import Source
from xenplugin.transfer.plan import Plan
from xenplugin.transfer.remote_index import RemoteIndex
from xenplugin.wire.frames import Chunk, Codec, Zeros

CORES = len(os.sched_getaffinity(0))
WORKERS = CORES + 1


def allocated(source: Source) -> int:
    """Bytes of the image that must be read: without a file's holes."""
    return source.size if source.device else min(source.size, os.fstat(source.fileno()).st_blocks * 512)


class Tally:
    """What the workers have done, for progress and the result, in bytes of the image: `done` were read and
    dealt with (holes of the file are not read), `data` of these are not zero, `sent` were sent."""

    def __init__(self) -> None:
        self.done = 0
        self.data = 0
        self.sent = 0
        self._lock = threading.Lock()

    def add(self, done: int, data: int, sent: int) -> None:
        with self._lock:
            self.done += done
            self.data += data
            self.sent += sent


@dataclass(frozen=True)
class Terms:
    """How a chunk is sent: the map of the blocks that the far side knows, the version; `fresh`: never before."""

    known: int
    version: int
    fresh: bool


class ChunkTracker(Protocol):
    """What is known of the chunks that were sent."""

    digest: ImageDigest

    def reading(self, index: int) -> AbstractContextManager[None]:
        """Held while chunk `index` is read and its terms are asked for."""

    def first(self, index: int) -> bool:
        """Whether chunk `index` is described for the first time: then zeros may be a run of them."""

    def zeros(self, run: Zeros) -> None:
        """These chunks are sent as zeros."""

    def terms(self, index: int, mask: int, leaves: bytes, digest: bytes) -> Terms | None:
        """How chunk `index` is to be sent, which has these `leaves` and this digest now, and is zeros but for the
        blocks of `mask`. None: not at all."""


_ANYWAY = nullcontext()


class SinglePassTracker:
    """The book of an image that nobody writes to. `base` None: the far side has nothing."""

    def __init__(self, size: int, base: RemoteIndex | None) -> None:
        self.digest = ImageDigest(size)
        self._base = base

    def reading(self, index: int) -> AbstractContextManager[None]:
        return _ANYWAY

    def first(self, index: int) -> bool:
        return True

    def zeros(self, run: Zeros) -> None:
        if self._base:
            self._base.forget(run.first, run.count)
        self.digest.add_zeros(run.first, run.count)

    def terms(self, index: int, mask: int, leaves: bytes, digest: bytes) -> Terms | None:
        known = self._base.known(index, leaves) if self._base else 0
        return Terms(known, 0, self.digest.add(index, digest))


class Packing:
    """Sends what `plan` hands out, as `book` says. `failed` is called with the first error."""

    def __init__(
        self,
        source: Source,
        plan: Plan,
        book: ChunkTracker,
        ladder: AdaptiveLevel,
        put: Callable[[Chunk | Zeros], None],
        failed: Callable[[XenpluginError], None],
    ) -> None:
        self.tally = Tally()
        self._source = source
        self._plan = plan
        self._book = book
        self._ladder = ladder
        self._put = put
        self._failed = failed
        self._threads: list[threading.Thread] = []

    def start(self, wait: bool = True) -> None:
        """Start the workers; they end with the plan (`wait`: when it is closed, else when it is empty)."""
        for number in range(WORKERS):
            self._start(f"pack-{number}", wait, True)
        if wait:
            # The others may all be waiting for an index that comes only once something has arrived, and
            # what was under way may have been lost. What was lost has had its index.
            self._start("pack-lost", wait, False)

    def _start(self, name: str, wait: bool, fresh: bool) -> None:
        thread = threading.Thread(target=self._work, args=(wait, fresh), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def join(self) -> None:
        """Wait for the workers' end."""
        for thread in self._threads:
            thread.join()

    def _work(self, wait: bool, fresh: bool) -> None:
        buffer = Buffer(CHUNK)
        packer = Packer()
        try:
            while (item := self._plan.take(wait, fresh)) is not None:
                if isinstance(item, Zeros):
                    self._zeros(item)
                else:
                    self._chunk(item, buffer, packer)
                self._plan.finished()
        except XenpluginError as exc:
            self._failed(exc)
        except Exception as exc:  # a bug must end the session, not hang it
            self._failed(ImageError(f"internal error while packing: {exc!r}"))

    def _zeros(self, run: Zeros) -> None:
        self._book.zeros(run)
        self._put(run)

    def _chunk(self, index: int, buffer: Buffer, packer: Packer) -> None:
        began = time.thread_time()
        self._source.ahead(index + WORKERS)
        length = chunk_length(self._source.size, index)
        with self._book.reading(index):
            view = self._source.read(index, buffer)
            mask = nonzero_blocks(buffer, length)
            if not mask and self._book.first(index):
                self._zeros(Zeros(index, 1))
                self.tally.add(length, 0, 0)
                return
            chunk_leaves = leaves(view, length, mask)
            digest = chunk_digest(chunk_leaves)
            terms = self._book.terms(index, mask, chunk_leaves, digest)
        if terms is None:
            return
        data = mask & ~terms.known
        codec, payload = Codec.STORED, b""
        if data:
            pieces = [view[start:stop] for start, stop in byte_runs(data, length)]
            level = self._ladder.choose()
            whole = pieces[0] if len(pieces) == 1 and level != STORE else b"".join(pieces)
            hashed = time.thread_time()
            codec, packed = packer.pack(whole, level)
            payload = packed if isinstance(packed, bytes) else bytes(packed)
            self._ladder.packed(level, len(whole), len(payload), time.thread_time() - hashed, hashed - began)
        self._put(Chunk(index, codec, data, terms.known, digest, payload, terms.version))
        sent = mapped_bytes(data, length)
        if terms.fresh:
            self.tally.add(length, mapped_bytes(mask, length), sent)
        else:
            self.tally.add(0, 0, sent)
