"""Decides how each chunk is sent: which of its blocks the destination has already, and in which version.

An image that nobody writes to is sent in one pass (SinglePassTracker). One that is written to meanwhile is sent in
rounds (LiveChunkTracker): the first describes every chunk (version 0, compared with the destination's old copy);
each later one reads some or all chunks again and sends the blocks that differ from what was last sent. Between
rounds everything is acknowledged, so that a block may be called known. The last round need not wait for that: a
chunk of which something is still on its way is sent whole. Once the last round is packed the sum of versions is
fixed (`freeze`) and goes into END; what is lost from then on is sent again in the same version, because nobody
writes to the image any more.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from xenplugin.errors import ImageError
from xenplugin.geometry import block_count, chunk_length
from xenplugin.image.index.digest import ImageDigest
from xenplugin.image.index.sent_leaves import SentLeaves
from xenplugin.image.index.versions import LAST, Versions
from xenplugin.transfer.chunks.plan import Plan
from xenplugin.transfer.chunks.remote_index import RemoteIndex
from xenplugin.wire.frames import Chunk, Sent, Zeros


@dataclass(frozen=True)
class SendDecision:
    """How to send a chunk: the map of the blocks that the destination has already, the version, and whether this is
    the first time (`fresh`)."""

    known: int
    version: int
    fresh: bool


class ChunkTracker(Protocol):
    """State of the chunks of one image; thread-safe."""

    digest: ImageDigest

    def reading(self, index: int) -> AbstractContextManager[None]:
        """Return a context to be held while chunk `index` is read and `decide` is called for it."""

    def is_first(self, index: int) -> bool:
        """Return whether chunk `index` is described for the first time: then zeros may be sent as a run of them."""

    def add_zeros(self, run: Zeros) -> None:
        """Note that the chunks of `run` are sent as zeros."""

    def decide(self, index: int, mask: int, leaves: bytes, digest: bytes) -> SendDecision | None:
        """Return how chunk `index` is to be sent, which has these `leaves` and this `digest` now, and is zeros but
        for the blocks of `mask`. None: not at all. Raises ImageError."""

    def acknowledged(self, frames: list[Sent]) -> None:
        """Note that `frames` have arrived."""

    def lost(self, frames: list[Sent], resend: Callable[[list[Sent]], None]) -> None:
        """Have `frames`, which may not have arrived, sent again by `resend`."""

    def freeze(self, plan: Plan) -> int | None:
        """Return the count for END if all that `plan` handed out is packed, else None."""


_UNGUARDED = nullcontext()


class SinglePassTracker:
    """Tracker of an image that nobody writes to. `index` None: the destination has nothing."""

    def __init__(self, size: int, index: RemoteIndex | None) -> None:
        self.digest = ImageDigest(size)
        self._index = index

    def reading(self, index: int) -> AbstractContextManager[None]:
        """Return a context that guards nothing: each chunk is read once at a time."""
        return _UNGUARDED

    def is_first(self, index: int) -> bool:
        """Return True: each chunk is described in its first version only."""
        return True

    def add_zeros(self, run: Zeros) -> None:
        """Note that the chunks of `run` are sent as zeros."""
        if self._index is not None:
            self._index.forget(run.first, run.count)
        self.digest.add_zeros(run.first, run.count)

    def decide(self, index: int, mask: int, leaves: bytes, digest: bytes) -> SendDecision | None:
        """Return how to send chunk `index`: without the blocks that the destination has."""
        known = self._index.known(index, leaves) if self._index is not None else 0
        return SendDecision(known, 0, self.digest.add(index, digest))

    def acknowledged(self, frames: list[Sent]) -> None:
        """Do nothing: what has arrived is never read again."""

    def lost(self, frames: list[Sent], resend: Callable[[list[Sent]], None]) -> None:
        """Have `frames` sent again by `resend`."""
        resend(frames)

    def freeze(self, plan: Plan) -> int | None:
        """Return 0, the count for END, if all that `plan` handed out is packed, else None."""
        return 0 if plan.wait_covered(0) else None


class LiveChunkTracker:
    """Tracker of an image of `size` bytes that is written to meanwhile. `index`: what the destination has at first;
    `sent`: keeps the leaves that were sent last."""

    def __init__(self, size: int, index: RemoteIndex, sent: SentLeaves) -> None:
        self.digest = ImageDigest(size, live=True)
        self.rounds = 0  #: begun
        self._size = size
        self._index = index
        self._sent = sent
        self._versions = Versions()
        #: Frames on their way: of each chunk, and runs of zeros.
        self._chunks: Counter[int] = Counter()
        self._runs = 0
        self._reading: set[int] = set()
        self._lost: set[int] = set()
        #: Chunks that were sent since the image was written to for the last time; None: it still may be.
        self._last: set[int] | None = None
        self._frozen = False
        self._changed = threading.Condition()

    def begin_round(self, last: bool) -> None:
        """Begin a round; `last`: nobody writes to the image any more."""
        with self._changed:
            self.rounds += 1
            if last:
                self._last = set()

    # -- for the packers (ChunkTracker) -------------------------------------------------------------

    @contextmanager
    def reading(self, index: int) -> Iterator[None]:
        """Return a context that one worker at a time holds: else what one read before the last write could be taken
        for newer than what another read after it."""
        with self._changed:
            self._changed.wait_for(lambda: index not in self._reading)
            self._reading.add(index)
        try:
            yield
        finally:
            with self._changed:
                self._reading.remove(index)
                self._changed.notify_all()

    def is_first(self, index: int) -> bool:
        """Return whether this is the first round, and chunk `index` was not lost in it."""
        return self.rounds == 1 and index not in self._lost

    def add_zeros(self, run: Zeros) -> None:
        """Note that the chunks of `run` are sent as zeros, in the first round."""
        self._index.forget(run.first, run.count)
        with self._changed:
            self.digest.add_zeros(run.first, run.count)
            self._runs += 1

    def decide(self, index: int, mask: int, leaves: bytes, digest: bytes) -> SendDecision | None:
        """Return how to send chunk `index`, or None if it is as it was last sent. Raises ImageError."""
        fresh = self.is_first(index)
        known = self._index.known(index, leaves) if fresh else 0
        with self._changed:
            version = self._versions[index]
            if not fresh:
                same = self._sent.compare(index, mask, leaves)
                unchanged = same == (1 << block_count(chunk_length(self._size, index))) - 1
                lost = index in self._lost
                self._lost.discard(index)
                if unchanged and not lost:
                    return None
                if self._frozen and not unchanged:
                    raise ImageError("the image was written to after its guest was suspended")
                # What was lost may have arrived all the same; what is sent now must win, unless it is the same.
                if not (unchanged and (self._frozen or (self._last is not None and index in self._last))):
                    version += 1
                    if version > LAST:
                        raise ImageError(f"chunk {index} was written to more than {LAST} times")
                known = same if not lost and not self._chunks[index] else 0
            self._sent.put(index, mask, leaves)
            self._versions[index] = version
            self.digest.replace(index, digest)
            self._chunks[index] += 1
            if self._last is not None:
                self._last.add(index)
        return SendDecision(known, version, fresh)

    # -- for the connections --------------------------------------------------------------------------

    def acknowledged(self, frames: list[Sent]) -> None:
        """Note that `frames` have arrived."""
        with self._changed:
            self._remove(frames)
            self._changed.notify_all()

    def lost(self, frames: list[Sent], resend: Callable[[list[Sent]], None]) -> None:
        """Have `frames`, which may not have arrived, sent again by `resend`."""
        with self._changed:
            self._remove(frames)
            self._lost.update(frame.index for frame in frames if isinstance(frame, Chunk))
            resend(frames)  # within the lock: `wait_arrived` must not look between
            self._changed.notify_all()

    def _remove(self, frames: list[Sent]) -> None:
        for frame in frames:
            if isinstance(frame, Chunk):
                self._chunks[frame.index] -= 1
                if not self._chunks[frame.index]:
                    del self._chunks[frame.index]
            elif isinstance(frame, Zeros):
                self._runs -= 1

    # -- for the rounds -------------------------------------------------------------------------------

    def wait_arrived(self, plan: Plan, timeout: float) -> bool:
        """Return whether all that `plan` handed out is packed and has arrived, waiting up to `timeout` seconds."""

        def has_arrived() -> bool:
            return not self._chunks and not self._runs and plan.wait_covered(0)

        with self._changed:
            return has_arrived() or (self._changed.wait(timeout) and has_arrived())

    def freeze(self, plan: Plan) -> int | None:
        """Return the sum of all versions, which stays from now on, if all that `plan` handed out is packed. Else
        None."""
        with self._changed:
            if not plan.wait_covered(0):
                return None
            self._frozen = True
            return self._versions.total
