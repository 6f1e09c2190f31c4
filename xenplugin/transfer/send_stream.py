"""The source side of a domain's stream: takes its bytes, packs and seals them over many connections, in order.

Threads: those of the session (transfer.initiator), workers that pack, and the caller, who writes. A segment's
payload is kept until its bytes were handed on at the far side: the stream cannot be read again. How much may be
under way follows the link, so that what waits here when the guest is suspended leaves soon.
"""

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
from xenplugin.errors import ImageError, Interrupted, XenpluginError
from xenplugin.link.rate import Pacer
from xenplugin.results import StreamResult
from xenplugin.transfer.inflight_limit import InflightLimit
from xenplugin.transfer.initiator import TICK, Initiator
from xenplugin.transfer.job import DOMAIN, Job
from xenplugin.transfer.packing import WORKERS
from xenplugin.transfer.receive_stream import note_fields, note_text
from xenplugin.wire.frames import MAX_SEGMENT, WINDOW, Answer, Frame, Note, Segment, Sent


class StreamSender:
    """A stream to `target_host` (None: a child process here) for what `details` say. `on_answer` gets the bytes
    that come back, `on_note` the objects, `on_failure` the error if the session fails, once; all from other
    threads, in which they should not stay long. `write`, `flush` and `end` are for one thread. Every method raises
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
        self._session = Initiator(
            target_host,
            config,
            emit,
            redo=self._redo,
            hear=self._hear,
            acknowledged=self._handed_on,
            failed=self._failed,
            pacer=pacer,
        )
        self._digest = hashlib.sha256()
        self._parts: list[bytes] = []
        self._collected = 0
        self._segment = MAX_SEGMENT  # bytes of the stream in the next
        self.bytes_in = 0  #: of the stream, so far
        self.bytes_on = 0  #: of these, handed on at the far side
        self._next = 0  # number of the next segment
        self._packed = 0  # segments that were packed and given to the connections
        self._work: deque[tuple[int, bytes]] = deque()
        #: Segments that were not handed on at the far side yet, in order; None: to be packed.
        self._kept: dict[int, Segment | None] = {}
        self._held = 0  # bytes of these
        self._backlog = InflightLimit()
        self._closed = False
        self._changed = threading.Condition()

    def start(self) -> None:
        """Start the far side."""
        self._session.start(self._job)
        for number in range(WORKERS):
            threading.Thread(target=self._pack, name=f"pack-{number}", daemon=True).start()

    def connect(self) -> None:
        """Open the data's way, after `start`."""
        self._session.connect()
        self._backlog.connected(self._session.rtt)

    @property
    def failure(self) -> XenpluginError | None:
        """Why the session has failed, if it has."""
        return self._session.failure

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes; they leave when a segment is full, or at `flush`. Waits while too much is under way."""
        self._session.check()
        view = memoryview(data)
        while len(view):
            part = bytes(view[: self._segment - self._collected])
            self._parts.append(part)
            self._collected += len(part)
            view = view[len(part) :]
            if self._collected == self._segment:
                self.flush()

    def flush(self) -> None:
        """Let what was written leave now."""
        self._session.check()
        if not self._collected:
            return
        data = b"".join(self._parts)
        self._parts, self._collected, self._segment = [], 0, self._backlog.segment
        self._digest.update(data)
        self.bytes_in += len(data)
        with self._changed:
            while self._is_full() and self._session.failure is None and not self._closed:
                self._changed.wait(TICK)
            if not self._kept:
                self._backlog.begins(time.monotonic())
            self._kept[self._next] = None
            self._held += len(data)
            self._work.append((self._next, data))
            self._next += 1
            self._changed.notify_all()
        self._session.check()

    def close_in(self) -> None:
        """What was written is most of it: from now on let no more be under way than the link needs."""
        with self._changed:
            self._backlog.close_in()

    def note(self, fields: dict[str, Any]) -> None:
        """Tell the far side an object; from any thread."""
        self._session.check()
        self._session.say(Note(note_text(fields)))

    def end(self) -> None:
        """All bytes were written: wait until the far side says that they have had their effect."""
        self.flush()
        with self._changed:
            while self._packed < self._next and self._session.failure is None:
                self._changed.wait(TICK)
        self._session.check()
        self._session.end(self._digest.digest(), self._next)

    def fail(self, error: XenpluginError) -> None:
        """Have everything that waits here raise `error`; from any thread."""
        self._session.fail(error)

    def close(self) -> None:
        """End it; the far side is told if that is before `end` was done."""
        if self._session.done is None:
            self._session.tell(self._session.failure or Interrupted("the source gave up"))
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._session.close()

    def progress(self, what: str, total: int, seconds: float) -> events.Progress:
        """How far it is: of about `total` bytes of `what`, `seconds` after the first."""
        done, session = self.bytes_in, self._session
        return events.Progress(done, total, done, session.bytes_wire, session.ladder.level, seconds, what)

    def result(self) -> StreamResult:
        """Return the bytes moved and how they were sent."""
        session = self._session
        return StreamResult(
            bytes_stream=self.bytes_in,
            bytes_wire=session.bytes_wire,
            cipher=self._job.cipher.label,
            level=session.ladder.level,
            streams=max(session.streams, session.pool.size),
        )

    def _is_full(self) -> bool:
        if not self._kept:
            return False
        limited = self._held >= self._backlog.limit
        if limited or self._next - next(iter(self._kept)) >= WINDOW:
            self._backlog.tight(limited)
            self._session.gauge.bounded()
            return True
        return len(self._work) >= WORKERS

    def _pack(self) -> None:
        packer = Packer()
        ladder = self._session.ladder
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._work or self._closed)
                    if self._closed:
                        return
                    number, data = self._work.popleft()
                    self._changed.notify_all()
                level, began = ladder.choose(), time.thread_time()
                codec, payload = packer.pack(data, level)
                ladder.packed(level, len(data), len(payload), time.thread_time() - began, 0.0)
                segment = Segment(number, codec, len(data), payload)
                with self._changed:
                    self._kept[number] = segment
                    self._held += len(payload) - len(data)
                    self._backlog.packed(len(payload), len(data))
                self._session.put(segment)
                with self._changed:
                    self._packed += 1
                    self._changed.notify_all()
        except Exception as exc:  # a bug must end the session, not hang it
            self._session.fail(ImageError(f"internal error while packing: {exc!r}"))

    def _redo(self, frames: list[Sent]) -> None:
        for frame in frames:
            if isinstance(frame, Segment):
                with self._changed:
                    segment = self._kept.get(frame.number)
                if segment is not None:
                    # It has been in the queue before: there is always room for what was there.
                    self._session.put(segment)

    def _handed_on(self, frames: list[Sent]) -> None:
        with self._changed:
            for frame in frames:
                segment = self._kept.pop(frame.number, None) if isinstance(frame, Segment) else None
                if segment is not None:
                    self._held -= len(segment.payload)
                    self.bytes_on += segment.length
                    self._backlog.handed_on(len(segment.payload), segment.length, time.monotonic())
            self._changed.notify_all()

    def _hear(self, frame: Frame) -> None:
        if isinstance(frame, Answer):
            self._on_answer(bytes(frame.data))
        elif isinstance(frame, Note):
            self._on_note(note_fields(frame.text))

    def _failed(self, error: XenpluginError) -> None:
        with self._changed:
            self._changed.notify_all()
        if self._on_failure is not None:
            self._on_failure(error)
