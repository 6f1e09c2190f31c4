"""Sends a domain's stream: its bytes in order, compressed and sealed over many connections.

Threads: those of the session (transfer.sessions.source_session), workers that compress, and the caller, who writes.
A segment's payload is kept until its bytes were handed on at the destination: the stream cannot be read again. How
much may be in flight follows the link, so that what waits here when the guest is suspended leaves soon."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from xenplugin import events
from xenplugin.codec.compress import Packer
from xenplugin.config import Config
from xenplugin.errors import Interrupted, XenpluginError, unexpected
from xenplugin.link.rate import Pacer
from xenplugin.link.ssh_multiplexing import PrestartedRemote
from xenplugin.results import StreamResult
from xenplugin.transfer.chunks.packing import WORKERS
from xenplugin.transfer.sessions.job import DOMAIN, Job
from xenplugin.transfer.sessions.session import TICK, quietly
from xenplugin.transfer.sessions.source_session import SourceSession, start_remote
from xenplugin.transfer.streams.inflight_limit import InflightLimit
from xenplugin.transfer.streams.receive_stream import note_fields, note_text
from xenplugin.wire.frames import MAX_SEGMENT, WINDOW, Answer, Frame, Note, Segment, Sent


class StreamSender:
    """Sends a stream to `target_host` (None: a child process here), described by `details`. `on_answer` gets the
    bytes that come back, `on_note` the objects, `on_failure` the error if the session fails, once; all are called
    from other threads and should return soon. `write`, `flush` and `end` are for one thread. Every method raises
    the session's failure as XenpluginError."""

    def __init__(
        self,
        details: dict[str, Any],
        target_host: str | None,
        config: Config,
        emit: events.Emit,
        on_answer: Callable[[bytes], None],
        on_note: Callable[[dict[str, Any]], None],
        *,
        on_failure: Callable[[XenpluginError], None] | None = None,
        pacer: Pacer | None = None,
    ) -> None:
        self._job = Job.fresh(config.cipher, target_host is None, kind=DOMAIN, details=details)
        self._on_answer = on_answer
        self._on_note = on_note
        self._on_failure = on_failure
        self._target_host = target_host
        self._config = config
        self._emit = quietly(emit)
        self._pacer = pacer
        self._remote: PrestartedRemote | None = None
        self._session: SourceSession | None = None
        self._closing = False
        self._digest = hashlib.sha256()
        self._parts: list[bytes] = []
        self._collected = 0
        self._segment = MAX_SEGMENT  # bytes of the stream in the next
        self.bytes_in = 0  #: of the stream, so far
        self.bytes_on = 0  #: of these, handed on at the far side
        self._next = 0  # number of the next segment
        self._packed = 0  # segments that were packed and given to the connections
        self._work: deque[tuple[int, bytes]] = deque()
        #: Segments that were not handed on at the destination yet, in order; None: to be compressed.
        self._kept: dict[int, Segment | None] = {}
        self._held = 0  # bytes of these
        self._inflight = InflightLimit()
        self._changed = threading.Condition()

    def start(self) -> None:
        """Start the destination's side."""
        self._remote = start_remote(self._target_host, self._config, self._emit)
        self._session = SourceSession(
            self._remote.take(),
            self._target_host,
            self._job,
            self._config,
            self._emit,
            resend=self._resend,
            handle=self._handle,
            acknowledged=self._acknowledged,
            on_failure=self._failed,
            pacer=self._pacer,
        )
        if self._closing:  # since the remote process was taken
            self._session.close()
            raise Interrupted("the source gave up")
        for number in range(WORKERS):
            threading.Thread(target=self._pack, name=f"pack-{number}", daemon=True).start()

    def connect(self) -> None:
        """Open the data connections, after `start`."""
        self._started.connect()
        self._inflight.connected(self._started.rtt)

    @property
    def failure(self) -> XenpluginError | None:
        """Why the session has failed, if it has."""
        return self._session.failure if self._session is not None else None

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes; they leave when a segment is full, or at `flush`. Waits while too much is in flight."""
        self._started.check()
        view = memoryview(data)
        while len(view):
            part = bytes(view[: self._segment - self._collected])
            self._parts.append(part)
            self._collected += len(part)
            view = view[len(part) :]
            if self._collected == self._segment:
                self.flush()

    def flush(self) -> None:
        """Send what was written now."""
        session = self._started
        session.check()
        if not self._collected:
            return
        data = b"".join(self._parts)
        self._parts, self._collected, self._segment = [], 0, self._inflight.segment
        self._digest.update(data)
        self.bytes_in += len(data)
        with self._changed:
            while self._is_full() and session.failure is None and not self._closing:
                self._changed.wait(TICK)
            if not self._kept:
                self._inflight.started(time.monotonic())
            self._kept[self._next] = None
            self._held += len(data)
            self._work.append((self._next, data))
            self._next += 1
            self._changed.notify_all()
        session.check()

    def prepare_stop(self) -> None:
        """Have no more in flight from now on than the link needs: what was written is most of the stream."""
        with self._changed:
            self._inflight.prepare_stop()

    def note(self, fields: dict[str, Any]) -> None:
        """Send the destination an object; from any thread."""
        self._started.check()
        self._started.send(Note(note_text(fields)))

    def end(self) -> None:
        """End the stream, and wait for the destination's receipt that its bytes have had their effect."""
        session = self._started
        self.flush()
        with self._changed:
            while self._packed < self._next and session.failure is None:
                self._changed.wait(TICK)
        session.check()
        session.end(self._digest.digest(), self._next)

    def fail(self, error: XenpluginError) -> None:
        """Have everything that waits here raise `error`; from any thread."""
        if self._session is not None:
            self._session.fail(error)

    def close(self) -> None:
        """End the session, and report to the destination if that is before `end` was done."""
        with self._changed:
            self._closing = True
        if self._remote is not None:
            self._remote.close()
        session = self._session
        if session is not None and session.done is None:
            session.report(session.failure or Interrupted("the source gave up"))
        with self._changed:
            self._changed.notify_all()
        if session is not None:
            session.close()

    def progress(self, what: str, total: int, seconds: float) -> events.Progress:
        """Return the progress: of about `total` bytes of `what`, `seconds` after the first."""
        done, session = self.bytes_in, self._started
        return events.Progress(done, total, done, session.bytes_wire, session.adaptive.level, seconds, what)

    def result(self) -> StreamResult:
        """Return the bytes moved and how they were sent."""
        session = self._started
        return StreamResult(
            bytes_stream=self.bytes_in,
            bytes_wire=session.bytes_wire,
            cipher=self._job.cipher.label,
            level=session.adaptive.level,
            streams=session.streams,
        )

    @property
    def _started(self) -> SourceSession:
        assert self._session is not None
        return self._session

    def _is_full(self) -> bool:
        if not self._kept:
            return False
        limited = self._held >= self._inflight.limit
        if limited or self._next - next(iter(self._kept)) >= WINDOW:
            self._inflight.limited(limited)
            self._started.gauge.limit_reached()
            return True
        return len(self._work) >= WORKERS

    def _pack(self) -> None:
        packer = Packer()
        session = self._started
        adaptive = session.adaptive
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._work or self._closing)
                    if self._closing:
                        return
                    number, data = self._work.popleft()
                    self._changed.notify_all()
                level, began = adaptive.choose(), time.thread_time()
                codec, payload = packer.pack(data, level)
                adaptive.packed(level, len(data), len(payload), time.thread_time() - began, 0.0)
                segment = Segment(number, codec, len(data), payload)
                with self._changed:
                    self._kept[number] = segment
                    self._held += len(payload) - len(data)
                    self._inflight.packed(len(payload), len(data))
                session.put(segment)
                with self._changed:
                    self._packed += 1
                    self._changed.notify_all()
        except Exception as exc:  # what ends this thread must end the session, not hang it
            session.fail(unexpected(exc))

    def _resend(self, frames: list[Sent]) -> None:
        for frame in frames:
            if isinstance(frame, Segment):
                with self._changed:
                    segment = self._kept.get(frame.number)
                if segment is not None:
                    # It has been in the queue before: there is always room for what was there.
                    self._started.put(segment)

    def _acknowledged(self, frames: list[Sent]) -> None:
        with self._changed:
            for frame in frames:
                segment = self._kept.pop(frame.number, None) if isinstance(frame, Segment) else None
                if segment is not None:
                    self._held -= len(segment.payload)
                    self.bytes_on += segment.length
                    self._inflight.arrived(len(segment.payload), segment.length, time.monotonic())
            self._changed.notify_all()

    def _handle(self, frame: Frame) -> None:
        if isinstance(frame, Answer):
            self._on_answer(bytes(frame.data))
        elif isinstance(frame, Note):
            self._on_note(note_fields(frame.text))

    def _failed(self, error: XenpluginError) -> None:
        with self._changed:
            self._changed.notify_all()
        if self._on_failure is not None:
            self._on_failure(error)
