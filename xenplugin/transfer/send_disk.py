"""The source side of one copy: sends an image that nobody writes to, and awaits the receipt.

Threads: those of the session (transfer.initiator), workers (packing), and the caller, who waits, reports progress
and takes ctrl-C.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import Interrupted, XenpluginError
from xenplugin.geometry import CHUNK
from xenplugin.image.index.digest import text
from xenplugin.image.safety import shared_storage
from xenplugin.image.source.raw import Source
from xenplugin.results import TransferResult
from xenplugin.transfer.initiator import AGAIN, TICK, Initiator
from xenplugin.transfer.job import Job
from xenplugin.transfer.packing import Packing, SinglePassTracker, allocated
from xenplugin.transfer.plan import Plan
from xenplugin.transfer.remote_index import RemoteIndex
from xenplugin.wire.frames import Frame, Index, IndexRun


@dataclass(frozen=True)
class RemotePath:
    """`host` None: a child process on this machine."""

    host: str | None
    path: str

    def __str__(self) -> str:
        return self.path if self.host is None else f"{self.host}:{self.path}"


class DiskSender:
    """One transfer of `source` to `target`. `run()` once."""

    def __init__(self, source: Source, target: RemotePath, config: Config, emit: events.Emit) -> None:
        self._source = source
        self._target = target
        self._config = config
        self._allocated = allocated(source)
        self._base = RemoteIndex(source.size)
        self._plan = Plan(source.runs())
        self._session = Initiator(target.host, config, emit, redo=self._plan.redo, hear=self._hear)

    def run(self) -> TransferResult:
        """Move it. Raises XenpluginError."""
        session = self._session
        began = time.monotonic()
        session.emit(events.Phase("connect"))
        try:
            return self._converse(began)
        except OSError:
            raise session.lost() from None
        except KeyboardInterrupt as exc:
            session.tell(exc)
            raise Interrupted("interrupted", hint=AGAIN) from None
        except XenpluginError as exc:
            session.tell(exc)
            raise
        finally:
            self._plan.close()
            self._base.close()
            session.close()

    def _converse(self, began: float) -> TransferResult:
        session = self._session
        path, local = self._source.path, self._target.host is None
        with shared_storage.marked(path, live=False, local=local, notice=session.notice) as disk:
            job = Job.fresh(
                self._config.cipher,
                local,
                size=self._source.size,
                path=self._target.path,
                whole=self._config.whole,
                disk=disk,
            )
            session.start(job)
            book = SinglePassTracker(job.size, self._base)
            packing = Packing(self._source, self._plan, book, session.ladder, session.put, session.fail)
            packing.start()
            session.connect()
        if (session.welcome or {}).get("unsure"):
            session.notice(shared_storage.unknown(self._target.path))
        connected = time.monotonic()
        self._transfer(packing, connected)
        moved = time.monotonic()
        session.emit(events.Phase("finish"))
        self._source.finish()
        root = book.digest.root()
        session.end(root)
        ended = time.monotonic()
        return TransferResult(
            seconds=ended - began,
            bytes_image=job.size,
            bytes_data=packing.tally.data,
            bytes_wire=session.bytes_wire,
            phases={"connect": connected - began, "transfer": moved - connected, "finish": ended - moved},
            cipher=job.cipher.label,
            level=session.ladder.level,
            streams=max(session.streams, session.pool.size),
            resumed=(session.welcome or {}).get("resumed", 0),
            sha256=text(root),
        )

    def _transfer(self, packing: Packing, began: float) -> None:
        session = self._session
        session.emit(events.Phase("transfer"))
        while not (self._plan.wait_covered(TICK) and session.pool.queue.wait_empty(TICK)):
            session.check()
            self._report(packing, began)
        session.check()
        self._report(packing, began)

    def _report(self, packing: Packing, began: float) -> None:
        tally, session = packing.tally, self._session
        session.emit(
            events.Progress(
                # Holes are frames as well, so this can be too little for a moment, never too much.
                min(max(0, tally.done - session.pool.waiting * CHUNK), self._allocated),
                self._allocated,
                tally.data,
                session.pool.bytes_wire,
                session.ladder.level,
                time.monotonic() - began,
            )
        )

    def _hear(self, frame: Frame) -> None:
        if isinstance(frame, Index | IndexRun):
            self._base.feed(frame)
