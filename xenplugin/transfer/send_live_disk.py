"""The source side of one disk of a guest: sent in rounds while the guest writes to it, settled when it is
suspended.

`precopy` sends everything, then what changed meanwhile, until little is left; `trail` goes on like that for as long
as something else takes; `settle` sends the rest of a disk that nobody writes to any more and awaits the receipt.
Without `precopy` it sends all of it. What changed is told by `Changes`, or found by comparing leaves
(transfer.chunk_tracker)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import Interrupted, XenpluginError
from xenplugin.geometry import CHUNK
from xenplugin.image.index.digest import text
from xenplugin.image.index.sent_leaves import SentLeaves
from xenplugin.image.safety import shared_storage
from xenplugin.image.source.changes import Changes
from xenplugin.image.source.raw import Source
from xenplugin.link import tcp
from xenplugin.link.rate import Pacer
from xenplugin.link.ssh_multiplexing import PrestartedRemote
from xenplugin.results import PhaseName, TransferResult
from xenplugin.transfer.chunk_tracker import LiveChunkTracker
from xenplugin.transfer.initiator import AGAIN, TICK, Initiator
from xenplugin.transfer.job import Job
from xenplugin.transfer.packing import Packing, Tally, allocated
from xenplugin.transfer.plan import Plan, in_order
from xenplugin.transfer.precopy_policy import PrecopyPolicy
from xenplugin.transfer.remote_index import RemoteIndex
from xenplugin.transfer.send_disk import RemotePath
from xenplugin.wire.frames import Frame, Index, IndexRun, Sent, Zeros

#: Seconds between looks at whether to stop: of the guest's downtime, so few.
_LOOK = 0.02
#: Seconds of pause after a round of `trail`, at least; and near its end.
_PAUSE, _PAUSE_LAST = 1.0, 0.1
#: Connections that are enough for what is written meanwhile, if that is little.
_FEW = 4
#: Seconds of the link's rate that wait in the queue when all has been sent once, and bytes at least.
_QUEUED = 0.25
_QUEUE = 4 << 20
#: Rounds after which `trail` waits only: a chunk's version is a small number.
_ROUNDS = 60_000


class LiveDiskSender:
    """`source` goes to `target`; `changes` watches it already; `standby` is the far side, if it was
    started already. Every method raises the session's failure as XenpluginError; each is for one thread at a time,
    but `close`."""

    def __init__(
        self,
        source: Source,
        target: RemotePath,
        config: Config,
        emit: events.Emit,
        changes: Changes,
        *,
        pacer: Pacer | None = None,
        standby: PrestartedRemote | None = None,
    ) -> None:
        self._source = source
        self._changes = changes
        self._allocated = allocated(source)
        self._base = RemoteIndex(source.size)
        self._plan = Plan(())
        self._sent = SentLeaves(config.state_dir, source.chunks)
        self._book = LiveChunkTracker(source.size, self._base, self._sent)
        self._local = target.host is None
        self._job = Job.fresh(
            config.cipher,
            self._local,
            size=source.size,
            path=target.path,
            whole=config.whole,
            live=True,
        )
        self._session = Initiator(
            target.host,
            config,
            emit,
            redo=lambda frames: self._book.lost(frames, self._plan.redo),
            hear=self._hear,
            acknowledged=self._acknowledged,
            pacer=pacer,
            standby=standby,
        )
        self._packing: Packing | None = None
        self._phases: dict[PhaseName, float] = {}
        self._converging = PrecopyPolicy()
        self._closing = False
        self._congestion = config.congestion or tcp.LOSSY
        self._began = time.monotonic()
        #: Chunks still to be read again; None: all of them.
        self._todo: set[int] | None = set()

    def open(self) -> None:
        """Start the far side, have it open its target, and open the data's way."""
        began = time.monotonic()
        session = self._session
        with shared_storage.marked(self._source.path, live=True, local=self._local, notice=session.notice) as disk:
            session.start(replace(self._job, disk=disk))
            self._packing = Packing(self._source, self._plan, self._book, session.ladder, session.put, session.fail)
            self._packing.start()
            session.connect()
        if (session.welcome or {}).get("unsure"):
            session.notice(shared_storage.unknown(self._job.path))
        self._phases["connect"] = time.monotonic() - began

    @property
    def placeholder(self) -> bool:
        """Whether the far side has made an empty file under the final name."""
        return bool((self._session.welcome or {}).get("placeholder"))

    @property
    def rounds(self) -> int:
        """Rounds begun."""
        return self._book.rounds

    def precopy(self) -> None:
        """Send everything once, then what was written to meanwhile, until little is left or it grows no less."""
        began = time.monotonic()
        self._changes.drain()  # what was written before is read now
        self._round(in_order(self._source.runs()), None)
        self._narrow(time.monotonic() - began)
        while True:
            self._drain()
            if self._converging.enough(None if self._todo is None else len(self._todo)):
                break
            self._round(self._items(), None)
        self._phases["precopy"] = time.monotonic() - began

    def trail(self, stop: threading.Event) -> None:
        """Go on with rounds until `stop` is set; after `precopy`."""
        while not stop.is_set():
            began = time.monotonic()
            self._drain()
            known = self._todo is not None
            self._share_out()
            if self._book.rounds < _ROUNDS and self._todo != set():
                self._round(self._items(), stop)
            self._session.check()
            now = time.monotonic()
            until = now + max(_PAUSE, now - began)
            # Near the end only the least, but not where the whole disk would be read again without a pause.
            while not stop.wait(_PAUSE_LAST) and time.monotonic() < until and not (self._closing and known):
                pass

    def close_in(self) -> None:
        """The guest may be suspended soon, and little is to be left then. From any thread."""
        self._closing = True

    def settle(self) -> TransferResult:
        """Nobody writes to the disk any more: send what is left, have the far side make it durable under its final
        name."""
        began = time.monotonic()
        session, plan = self._session, self._plan
        items: Iterator[int | Zeros]
        if self._book.rounds:
            self._drain()
            session.pool.use_all()
            items = self._items()
        else:
            items = in_order(self._source.runs())
        self._book.begin(last=True)
        plan.begin(items)
        total: int | None = None
        while total is None:
            session.check()
            plan.wait_covered(TICK)
            total = self._book.seal(plan)
            self._report()
        while not session.pool.queue.wait_empty(TICK):
            session.check()
            self._report()
        root = self._book.digest.root()
        session.end(root, total)
        ended = time.monotonic()
        self._phases["settle"] = ended - began
        return TransferResult(
            seconds=ended - self._began,
            bytes_image=self._job.size,
            bytes_data=self._tally.data,
            bytes_wire=session.bytes_wire,
            phases=self._phases,
            cipher=self._job.cipher.label,
            level=session.ladder.level,
            streams=max(session.streams, session.pool.size),
            resumed=(session.welcome or {}).get("resumed", 0),
            sha256=text(root),
            rounds=self._book.rounds,
        )

    def close(self, error: XenpluginError | None = None) -> None:
        """End it; unless it is settled the far side is told `error`, and keeps what came for another time if the
        error is none of the image's. From any thread; who waits in another method is let go. `changes` and `source`
        stay open."""
        session = self._session
        if session.done is None:
            session.fail(error or Interrupted("the source gave up", hint=AGAIN))
            if session.failure is not None:
                session.tell(session.failure)
        self._plan.close()
        self._base.close()
        session.close()
        if self._packing is not None:
            self._packing.join()

    # -- rounds -----------------------------------------------------------------------------------

    def _drain(self) -> None:
        changed = self._changes.drain()
        self._todo = None if changed is None or self._todo is None else self._todo | changed

    def _share_out(self) -> None:
        """Little goes over a few connections that stay warm, much over all."""
        pool = self._session.pool
        if self._todo is not None and len(self._todo) * CHUNK <= _FEW * tcp.largest_window():
            pool.use_few(_FEW, self._congestion)
        else:
            pool.use_all()

    def _items(self) -> Iterator[int | Zeros]:
        """The chunks to be read again."""
        if self._todo is not None:
            return iter(sorted(index for index in self._todo if 0 <= index < self._source.chunks))
        return self._all()

    def _all(self) -> Iterator[int]:
        for run in self._source.runs():
            stop = run.first + run.count
            yield from self._sent.not_zero(run.first, stop) if run.hole else range(run.first, stop)

    def _round(self, items: Iterator[int | Zeros], stop: threading.Event | None) -> None:
        """A round of `items`; what `stop` leaves stays to be done."""
        began, sent, known = time.monotonic(), self._tally.sent, self._todo
        self._book.begin(last=False)
        self._plan.begin(items)
        while not self._book.settled(self._plan, _LOOK):
            self._session.check()
            if stop is not None and stop.is_set():
                left = self._plan.cut()
                self._todo = None if known is None else {item for item in left if isinstance(item, int)}
                return
            self._report()
        self._session.check()
        self._report()
        self._todo = set()
        # (The first round says nothing of how long changed chunks take: much of it the far side may have had.)
        self._converging.round(
            None if known is None else len(known), self._tally.sent - sent, time.monotonic() - began
        )

    def _narrow(self, seconds: float) -> None:
        """From now on what waits in the queue may have to wait for the guest's suspension."""
        session = self._session
        rate = session.pool.bytes_wire / max(seconds, _QUEUED)
        queue = session.pool.queue
        queue.capacity = int(min(queue.capacity, max(_QUEUE, _QUEUED * rate)))

    @property
    def _tally(self) -> Tally:
        assert self._packing is not None
        return self._packing.tally

    def _report(self) -> None:
        tally, session = self._tally, self._session
        session.emit(
            events.Progress(
                min(max(0, tally.done - session.pool.waiting * CHUNK), self._allocated),
                self._allocated,
                tally.data,
                session.pool.bytes_wire,
                session.ladder.level,
                time.monotonic() - self._began,
            )
        )

    def _acknowledged(self, frames: list[Sent]) -> None:
        self._book.acknowledged(frames)

    def _hear(self, frame: Frame) -> None:
        if isinstance(frame, Index | IndexRun):
            self._base.feed(frame)
