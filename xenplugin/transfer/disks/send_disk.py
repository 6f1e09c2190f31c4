"""Sends one disk image: its index is compared, the rest compressed and sent, the receipt awaited.

`copy` sends an image that nobody writes to. A guest's disk (transfer.disks.send_live_disk) goes the same way in
rounds, of which only the last one is needed.

Threads: those of the session (transfer.sessions.source_session), workers (transfer.chunks.packing), and the caller,
who waits, reports progress and takes ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import RESUME_HINT, Interrupted, RefusedError, XenpluginError
from xenplugin.geometry import CHUNK
from xenplugin.image.index import unchanged
from xenplugin.image.index.digest import text
from xenplugin.image.safety import shared_storage
from xenplugin.image.source.raw import Source
from xenplugin.link.rate import Pacer
from xenplugin.link.remote import Starting
from xenplugin.results import PhaseName, TransferResult
from xenplugin.transfer.chunks.chunk_tracker import ChunkTracker, SinglePassTracker
from xenplugin.transfer.chunks.packing import PackerPool, Tally, allocated
from xenplugin.transfer.chunks.plan import Plan
from xenplugin.transfer.chunks.remote_index import RemoteIndex
from xenplugin.transfer.disks.kept_backing import wanted_backing
from xenplugin.transfer.sessions.job import Job
from xenplugin.transfer.sessions.session import TICK, expected, quietly
from xenplugin.transfer.sessions.source_session import SourceSession, start_remote
from xenplugin.transfer.sessions.welcome import WelcomeFields
from xenplugin.wire.frames import Frame, Index, IndexRun


@dataclass(frozen=True)
class RemotePath:
    """A path on `host`; None: on this machine, where a child process receives."""

    host: str | None
    path: str

    def __str__(self) -> str:
        return self.path if self.host is None else f"{self.host}:{self.path}"


def copy(
    source: Source,
    target: RemotePath,
    config: Config,
    emit: events.Emit,
    remote: Starting | None = None,
    *,
    data: int | None = None,
) -> TransferResult:
    """Send `source`, which nobody writes to meanwhile, to `target`. `remote`: as for DiskSender; `data`: for how
    many bytes the target must have room, None to find out. Raises XenpluginError."""
    index = RemoteIndex(source.size)
    tracker = SinglePassTracker(source.size, index)
    try:
        plan = Plan(source.runs())
        data = source.taken() or 0 if data is None else data
        return DiskSender(source, target, config, emit, index, tracker, plan, remote=remote, data=data).run()
    except XenpluginError as exc:
        if target.host is None:
            exc.remote = False  # the child process that found it is no other side to the user
        raise


class DiskSender:
    """Sends `source` to `target`, as `tracker` says: what `plan` hands out at first, and what is lost again.
    `index` is filled with what the target holds already; `new`: nothing there may be replaced; `migration`: the id
    of the one that it belongs to, if any; `data`: for how many bytes the target must have room; `remote`: the
    destination's process, if it was started before.

    Every method raises the session's failure as XenpluginError, and is for one thread at a time, except `close`."""

    def __init__(
        self,
        source: Source,
        target: RemotePath,
        config: Config,
        emit: events.Emit,
        index: RemoteIndex,
        tracker: ChunkTracker,
        plan: Plan,
        *,
        live: bool = False,
        new: bool = False,
        migration: str = "",
        data: int = 0,
        pacer: Pacer | None = None,
        remote: Starting | None = None,
    ) -> None:
        self._source = source
        self._target = target
        self._config = config
        self._emit = quietly(emit)
        self._index = index
        self._tracker = tracker
        self._plan = plan
        self._live = live
        self._pacer = pacer
        self._allocated = allocated(source)
        local = target.host is None
        self._job = Job.fresh(
            config.cipher,
            local,
            size=source.size,
            path=target.path,
            whole=config.whole,
            live=live,
            new=new,
            migration=migration,
            format=source.format.as_json(),
            backing=wanted_backing(source, config),
            larger_device=config.larger_device,
            data=data,
        )
        self._welcome = WelcomeFields()
        self._session: SourceSession | None = None
        self._packers: PackerPool | None = None
        self._phases: dict[PhaseName, float] = {}
        self._began = self._progress_since = time.monotonic()
        self._closing = False
        self._remote = remote

    def run(self) -> TransferResult:
        """Send the image from beginning to end, ctrl-C included."""
        error: XenpluginError | None = None
        try:
            self.open()
            self._progress_since = time.monotonic()
            return self.finish()
        except KeyboardInterrupt:
            error = Interrupted("interrupted")
            raise Interrupted("interrupted", hint=RESUME_HINT) from None
        except OSError as exc:
            error = self._session.lost() if self._session is not None else expected(exc)
            raise error from None
        except XenpluginError as exc:
            error = exc
            raise
        finally:
            self.close(error)

    def open(self) -> None:
        """Have the destination open its target, and open the data connections. Packing begins meanwhile."""
        path, job = self._source.path, self._job
        with (
            self._phase("connect"),
            shared_storage.marked(path, live=self._live, local=job.local, notice=self._notice) as disk,
        ):
            session = self._start_session(replace(job, disk=disk))
            self._packers = PackerPool(
                self._source, self._plan, self._tracker, session.adaptive, session.put, session.fail
            )
            self._packers.start()
            self._welcome = session.connect()
        if self._welcome.unsure:
            self._judge_unsure()
        if why := self._welcome.flattened:
            self._notice(f"{job.path} arrives without its backing file: {why}")
        if why := self._welcome.room:
            self._notice(why)

    def _judge_unsure(self) -> None:
        """It is not known whether the target is the source's own disk: raise RefusedError for a guest's disk,
        unless the administrator has said which disks are shared."""
        text = shared_storage.unknown(self._job.path)
        if not self._live:
            self._notice(f"{text}; if they do, stop now")
        elif self._config.shared is None:
            raise RefusedError(text, hint=shared_storage.ask(self._job.path))

    def finish(self) -> TransferResult:
        """Send what is left of the image, and wait until the destination has made it durable under its name."""
        with self._phase("transfer"):
            count = self._send_rest()
        with self._phase("finish"):
            unchanged.refuse_changed(self._source, self._tracker.digest.root(), self._notice)
            digest = self._conclude(count)
        return self._result(digest)

    def close(self, error: XenpluginError | None = None) -> None:
        """End the session. Unless the image is complete, `error` is reported to the destination, which keeps what
        has arrived for another try if the error is not the image's. From any thread; lets go what waits in another
        method. The source stays open."""
        self._closing = True
        if self._remote is not None:
            self._remote.close()
        session = self._session
        if session is not None and session.done is None:
            session.fail(error or Interrupted("the source gave up", hint=RESUME_HINT))
            if session.failure is not None:
                session.report(session.failure)
        self._plan.close()
        self._index.close()
        if session is not None:
            session.close()

    # -- for the subclass -------------------------------------------------------------------------

    @property
    def _opened(self) -> SourceSession:
        assert self._session is not None
        return self._session

    @property
    def _tally(self) -> Tally:
        assert self._packers is not None
        return self._packers.tally

    @contextmanager
    def _phase(self, name: PhaseName) -> Iterator[None]:
        """Measure the phase `name`."""
        self._emit(events.Phase(name))
        began = time.monotonic()
        yield
        self._phases[name] = time.monotonic() - began

    def _send_rest(self) -> int:
        """Wait until all that the plan holds has been given to the connections. Returns the count for END."""
        session = self._opened
        count: int | None = None
        while count is None:
            session.check()
            self._plan.wait_covered(TICK)
            count = self._tracker.freeze(self._plan)
            self._report()
        while not session.pool.queue.wait_empty(TICK):
            session.check()
            self._report()
        session.check()
        self._report()
        return count

    def _conclude(self, count: int) -> bytes:
        """End the stream and await the receipt. Returns the image digest."""
        digest = self._tracker.digest.root()
        self._opened.end(digest, count)
        return digest

    def _result(self, digest: bytes) -> TransferResult:
        session = self._opened
        return TransferResult(
            seconds=time.monotonic() - self._began,
            bytes_image=self._job.size,
            bytes_data=self._tally.data,
            bytes_wire=session.bytes_wire,
            phases=self._phases,
            cipher=self._job.cipher.label,
            level=session.adaptive.level,
            streams=session.streams,
            resumed=self._welcome.resumed,
            sha256=text(digest),
        )

    def _report(self) -> None:
        tally, session = self._tally, self._opened
        self._emit(
            events.Progress(
                # Holes are frames as well, so this can be too little for a moment, never too much.
                min(max(0, tally.done - session.pool.waiting * CHUNK), self._allocated),
                self._allocated,
                tally.data,
                session.pool.bytes_wire,
                session.adaptive.level,
                time.monotonic() - self._progress_since,
            )
        )

    def _notice(self, text: str) -> None:
        self._emit(events.Notice(text))

    # -- the session ------------------------------------------------------------------------------

    def _start_session(self, job: Job) -> SourceSession:
        if self._closing:
            raise Interrupted("the source gave up", hint=RESUME_HINT)
        # Only now, after all checks on this host: ssh may ask for a password.
        remote = self._remote = self._remote or start_remote(self._target.host, self._config, self._emit)
        if self._closing:  # by a `close` that saw no process yet
            remote.close()
        session = SourceSession(
            remote.take(),
            self._target.host,
            job,
            self._config,
            self._emit,
            resend=lambda frames: self._tracker.lost(frames, self._plan.resend),
            handle=self._handle,
            acknowledged=self._tracker.acknowledged,
            pacer=self._pacer,
        )
        self._session = session
        if self._closing:  # since the remote process was taken
            session.close()
            raise Interrupted("the source gave up", hint=RESUME_HINT)
        return session

    def _handle(self, frame: Frame) -> None:
        if isinstance(frame, Index | IndexRun):
            self._index.add(frame)
