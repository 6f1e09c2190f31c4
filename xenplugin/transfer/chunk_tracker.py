"""What the far side has of an image that is written to meanwhile, and so what must be said of a chunk read again.

Rounds: the first describes every chunk (version 0, compared with the far side's old copy); each later one reads
some or all again and sends the blocks that are not as they were last sent. Between rounds everything is
acknowledged, so that a block may be called known. The last round need not wait for that: a chunk of which something
is still under way is sent whole. When the last round is packed the sum of versions is told to the far side
(`seal`); what is lost from then on is sent again in the same version, because nobody writes to the image any more.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from xenplugin.errors import ImageError
from xenplugin.geometry import block_count, chunk_length
from xenplugin.image.index.digest import ImageDigest
from xenplugin.image.index.sent_leaves import SentLeaves
from xenplugin.image.index.versions import LAST, Versions
from xenplugin.transfer.packing import Terms
from xenplugin.transfer.plan import Plan
from xenplugin.transfer.remote_index import RemoteIndex
from xenplugin.wire.frames import Chunk, Sent, Zeros


class LiveChunkTracker:
    """Of an image of `size` bytes, of which the far side has `base` at first."""

    def __init__(self, size: int, base: RemoteIndex, sent: SentLeaves) -> None:
        self.digest = ImageDigest(size, live=True)
        self.rounds = 0
        self._size = size
        self._base = base
        self._sent = sent
        self._versions = Versions()
        #: Frames under way: of each chunk, and runs of zeros.
        self._chunks: Counter[int] = Counter()
        self._runs = 0
        self._reading: set[int] = set()
        self._lost: set[int] = set()
        #: Chunks that were sent since the image was written to for the last time; None: it still may be.
        self._last: set[int] | None = None
        self._sealed = False
        self._changed = threading.Condition()

    def begin(self, last: bool) -> None:
        """A round begins; `last`: nobody writes to the image any more."""
        with self._changed:
            self.rounds += 1
            if last:
                self._last = set()

    # -- for the workers (packing.Book) -------------------------------------------------------------

    @contextmanager
    def reading(self, index: int) -> Iterator[None]:
        """As packing.Book says. One worker at a time: else what one read before the last write could be taken for
        newer than what another read after it."""
        with self._changed:
            self._changed.wait_for(lambda: index not in self._reading)
            self._reading.add(index)
        try:
            yield
        finally:
            with self._changed:
                self._reading.remove(index)
                self._changed.notify_all()

    def first(self, index: int) -> bool:
        return self.rounds == 1 and index not in self._lost

    def zeros(self, run: Zeros) -> None:
        self._base.forget(run.first, run.count)
        with self._changed:
            self.digest.add_zeros(run.first, run.count)
            self._runs += 1

    def terms(self, index: int, mask: int, leaves: bytes, digest: bytes) -> Terms | None:
        """As packing.Book says. Raises ImageError."""
        fresh = self.first(index)
        known = self._base.known(index, leaves) if fresh else 0
        with self._changed:
            version = self._versions[index]
            if not fresh:
                same = self._sent.compare(index, mask, leaves)
                unchanged = same == (1 << block_count(chunk_length(self._size, index))) - 1
                lost = index in self._lost
                self._lost.discard(index)
                if unchanged and not lost:
                    return None
                if self._sealed and not unchanged:
                    raise ImageError("the image was written to after its guest was suspended")
                # What was lost may have arrived all the same; what is sent now must win, unless it is the same.
                if not (unchanged and (self._sealed or (self._last is not None and index in self._last))):
                    version += 1
                    if version > LAST:
                        raise ImageError(f"chunk {index} was written to all the time")
                known = same if not lost and not self._chunks[index] else 0
            self._sent.put(index, mask, leaves)
            self._versions[index] = version
            self.digest.replace(index, digest)
            self._chunks[index] += 1
            if self._last is not None:
                self._last.add(index)
        return Terms(known, version, fresh)

    # -- for the connections --------------------------------------------------------------------------

    def acknowledged(self, frames: list[Sent]) -> None:
        """These have arrived."""
        with self._changed:
            self._leave(frames)
            self._changed.notify_all()

    def lost(self, frames: list[Sent], redo: Callable[[list[Sent]], None]) -> None:
        """These may not have arrived: have them sent again by `redo`."""
        with self._changed:
            self._leave(frames)
            self._lost.update(frame.index for frame in frames if isinstance(frame, Chunk))
            redo(frames)  # within the lock: `settled` must not look between
            self._changed.notify_all()

    def _leave(self, frames: list[Sent]) -> None:
        for frame in frames:
            if isinstance(frame, Chunk):
                self._chunks[frame.index] -= 1
                if not self._chunks[frame.index]:
                    del self._chunks[frame.index]
            elif isinstance(frame, Zeros):
                self._runs -= 1

    # -- for whoever goes from round to round ---------------------------------------------------------

    def settled(self, plan: Plan, timeout: float) -> bool:
        """Whether all that `plan` handed out is packed and has arrived, waiting up to `timeout` seconds for it."""

        def look() -> bool:
            return not self._chunks and not self._runs and plan.wait_covered(0)

        with self._changed:
            return look() or (self._changed.wait(timeout) and look())

    def seal(self, plan: Plan) -> int | None:
        """The sum of all versions, if all that `plan` handed out is packed: from now on it stays. Else None."""
        with self._changed:
            if not plan.wait_covered(0):
                return None
            self._sealed = True
            return self._versions.total
