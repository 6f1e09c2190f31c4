"""Sends one disk of a guest: in rounds while the guest writes to it, the rest once it is suspended.

`precopy` sends everything, then what changed meanwhile, until little is left; `follow` goes on like that while
something else goes on; `finish` sends the rest of a disk that nobody writes to any more. Without `precopy` it sends
all of it. What changed is reported by `Changes`, or found by comparing leaves (transfer.chunks.chunk_tracker).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import XenpluginError
from xenplugin.geometry import CHUNK
from xenplugin.image.index.sent_leaves import SentLeaves
from xenplugin.image.source.changes import Changes
from xenplugin.image.source.raw import Source
from xenplugin.link import tcp
from xenplugin.link.rate import Pacer
from xenplugin.link.ssh_multiplexing import PrestartedRemote
from xenplugin.results import TransferResult
from xenplugin.transfer.chunks.chunk_tracker import LiveChunkTracker
from xenplugin.transfer.chunks.plan import Plan, in_order
from xenplugin.transfer.chunks.remote_index import RemoteIndex
from xenplugin.transfer.disks.precopy_policy import PrecopyPolicy
from xenplugin.transfer.disks.send_disk import DiskSender, RemotePath
from xenplugin.wire.frames import Zeros

#: Seconds between looks at whether to stop: of the guest's downtime, so few.
_LOOK = 0.02
#: Seconds of pause after a round of `follow`, at least; and near its end.
_PAUSE, _PAUSE_LAST = 1.0, 0.1
#: Connections that are enough for what is written meanwhile, if that is little.
_FEW = 4
#: Seconds of the link's rate that wait in the queue when all has been sent once, and bytes at least.
_QUEUED = 0.25
_QUEUE = 4 << 20
#: Rounds after which `follow` waits only: a chunk's version is a small number.
_ROUNDS = 60_000


class LiveDiskSender(DiskSender):
    """Sends `source`, whose writes `changes` reports already, to `target`, as a part of `migration` (its id).
    `new`: nothing there may be replaced."""

    def __init__(
        self,
        source: Source,
        target: RemotePath,
        config: Config,
        emit: events.Emit,
        changes: Changes,
        *,
        new: bool = False,
        migration: str = "",
        pacer: Pacer | None = None,
        remote: PrestartedRemote | None = None,
    ) -> None:
        index = RemoteIndex(source.size)
        self._sent = SentLeaves(config.state_dir, source.chunks)
        self._chunks = LiveChunkTracker(source.size, index, self._sent)
        self._changes = changes
        self._policy = PrecopyPolicy()
        self._near_end = False
        self._congestion = config.congestion or tcp.LOSSY
        #: Chunks still to be read again; None: all of them.
        self._todo: set[int] | None = set()
        super().__init__(
            source,
            target,
            config,
            emit,
            index,
            self._chunks,
            Plan(()),
            live=True,
            new=new,
            migration=migration,
            pacer=pacer,
            remote=remote,
        )

    @property
    def placeholder(self) -> bool:
        """Whether the destination has made an empty file under the final name."""
        return self._welcome.placeholder

    @property
    def rounds(self) -> int:
        """Rounds begun."""
        return self._chunks.rounds

    @property
    def seconds_left(self) -> float:
        """Seconds that what is left would take after `precopy`; 0.0 if that is not known."""
        return self._policy.seconds_left

    def precopy(self) -> None:
        """Send everything once, then what was written to meanwhile, until little is left or it stops shrinking."""
        with self._phase("precopy"):
            began = time.monotonic()
            self._changes.drain()  # what was written before is read now
            self._round(in_order(self._source.runs()), None)
            self._limit_queue(time.monotonic() - began)
            while True:
                self._drain()
                if self._policy.enough(None if self._todo is None else len(self._todo)):
                    break
                self._round(self._items(), None)

    def follow(self, stop: threading.Event) -> None:
        """Go on with rounds until `stop` is set; after `precopy`."""
        while not stop.is_set():
            began = time.monotonic()
            self._drain()
            known = self._todo is not None
            self._choose_connections()
            if self.rounds < _ROUNDS and self._todo != set():
                self._round(self._items(), stop)
            self._opened.check()
            now = time.monotonic()
            until = now + max(_PAUSE, now - began)
            # Near the end only the least, but not where the whole disk would be read again without a pause.
            while not stop.wait(_PAUSE_LAST) and time.monotonic() < until and not (self._near_end and known):
                pass

    def prepare_stop(self) -> None:
        """Leave little to be sent from now on: the guest may be suspended soon. From any thread."""
        self._near_end = True

    def finish(self) -> TransferResult:
        """Send what is left of a disk that nobody writes to any more, and wait until the destination has made it
        durable under its name."""
        with self._phase("settle"):
            items: Iterator[int | Zeros]
            if self.rounds:
                self._drain()
                self._opened.pool.use_all()
                items = self._items()
            else:
                items = in_order(self._source.runs())
            self._chunks.begin_round(last=True)
            self._plan.begin_round(items)
            digest = self._conclude(self._send_rest())
        return replace(self._result(digest), rounds=self.rounds)

    def close(self, error: XenpluginError | None = None) -> None:
        """As DiskSender.close; `changes` stays open as well."""
        super().close(error)
        if self._packers is not None:
            self._packers.join()

    def _drain(self) -> None:
        changed = self._changes.drain()
        self._todo = None if changed is None or self._todo is None else self._todo | changed

    def _choose_connections(self) -> None:
        """Send little over a few connections that stay warm, much over all."""
        pool = self._opened.pool
        if self._todo is not None and len(self._todo) * CHUNK <= _FEW * tcp.largest_window():
            pool.use_few(_FEW, self._congestion)
        else:
            pool.use_all()

    def _items(self) -> Iterator[int | Zeros]:
        """Return the chunks to be read again."""
        if self._todo is not None:
            return iter(sorted(index for index in self._todo if 0 <= index < self._source.chunks))
        return self._all()

    def _all(self) -> Iterator[int]:
        for run in self._source.runs():
            stop = run.first + run.count
            yield from self._sent.not_zero(run.first, stop) if run.hole else range(run.first, stop)

    def _round(self, items: Iterator[int | Zeros], stop: threading.Event | None) -> None:
        """Send `items` in a round of their own; what `stop` leaves stays to be done."""
        began, sent, known = time.monotonic(), self._tally.sent, self._todo
        self._chunks.begin_round(last=False)
        self._plan.begin_round(items)
        while not self._chunks.wait_arrived(self._plan, _LOOK):
            self._opened.check()
            if stop is not None and stop.is_set():
                left = self._plan.end_round()
                self._todo = None if known is None else {item for item in left if isinstance(item, int)}
                return
            self._report()
        self._opened.check()
        self._report()
        self._todo = set()
        # (The first round says nothing of how long changed chunks take: much of it the far side may have had.)
        self._policy.add_round(
            None if known is None else len(known), self._tally.sent - sent, time.monotonic() - began
        )

    def _limit_queue(self, seconds: float) -> None:
        """Keep the queue short from now on: what waits in it may have to leave while the guest is suspended.
        `seconds`: what the first round took."""
        pool = self._opened.pool
        rate = pool.bytes_wire / max(seconds, _QUEUED)
        pool.queue.capacity = int(min(pool.queue.capacity, max(_QUEUE, _QUEUED * rate)))
