"""Asks the destination what it has of some images, and measures the path to it. Nothing is changed there.

Threads: those of the session (transfer.sessions.source_session); one that feeds the measurement; the callers: one
asks and awaits answers, another may measure at the same time."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence

from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import PeerError
from xenplugin.link.ready_line import MEASURE
from xenplugin.link.ssh_multiplexing import PrestartedRemote
from xenplugin.results import Expected
from xenplugin.transfer.measuring.host_load import HostLoad, LoadWatch
from xenplugin.transfer.measuring.measurement_messages import About, AnsweredChunk, Question, unpack_answer
from xenplugin.transfer.measuring.rate_samples import RateSamples
from xenplugin.transfer.sessions.job import MEASUREMENT, Job, MeasuredImage
from xenplugin.transfer.sessions.source_session import SourceSession, start_remote
from xenplugin.transfer.streams.receive_stream import note_fields, note_text
from xenplugin.wire.frames import Answer, Codec, End, Frame, Note, Segment, Sent

#: Bounds of a measurement: seconds, and bytes sent.
PROBE_SECONDS, PROBE_BYTES = 2.0, 96 << 20
#: Bytes of a segment, and of those that wait to be sent: over data connections; and over the control channel, which
#: ssh fills with what it has not sent yet, so that little may be in flight there.
_SEGMENT, _QUEUED = 128 << 10, 2 << 20
_SEGMENT_CONTROL, _INFLIGHT_CONTROL = 16 << 10, 256 << 10
_LOOK = 0.01
#: Seconds for the end to be acknowledged.
_END_SECONDS = 2.0


class Measurement:
    """Asks `host` about `images`. `remote`: its process, if it was started before.

    Every method raises the session's failure as XenpluginError."""

    def __init__(
        self,
        host: str | None,
        images: Sequence[MeasuredImage],
        config: Config,
        emit: events.Emit,
        remote: PrestartedRemote | None = None,
    ) -> None:
        self._host = host
        self._config = config
        self._emit = emit
        self._job = Job.fresh(config.cipher, host is None, kind=MEASUREMENT, images=tuple(images))
        self._remote = remote
        self._session: SourceSession | None = None
        self._asked: deque[Question] = deque()
        self._answered: deque[tuple[float, list[AnsweredChunk]]] = deque()
        self._arrived = 0  # bytes of segments that were acknowledged
        self._stop = threading.Event()
        self._about: About | None = None
        self.load = HostLoad()  #: of this host, while the destination's process was started
        self.cores = 0  #: of the destination; 0: not known
        self.ready_seconds = 0.0  #: from the start of the destination's process to its first line
        self.rtt = 0.0  #: seconds; of the control channel it is known after `probe`
        self.streams = 0  #: data connections; 0: the control channel carries the data

    def open(self) -> None:
        """Start the destination's side."""
        began = time.monotonic()
        self._remote = self._remote or start_remote(self._host, self._config, self._emit, MEASURE)
        watch = LoadWatch()
        process = self._remote.take()
        self.load = watch.result()
        self.ready_seconds = time.monotonic() - began
        self._session = SourceSession(
            process,
            self._host,
            self._job,
            self._config,
            self._emit,
            resend=lambda frames: None,
            handle=self._handle,
            acknowledged=self._acknowledged,
        )

    def ask(self, question: Question) -> None:
        """Ask; at most MOST_QUESTIONS may wait for an answer."""
        self._asked.append(question)
        self._opened.send(Note(note_text(question.fields)))

    def answer(self) -> tuple[float, list[AnsweredChunk]]:
        """Await the answer to the next question: the CPU seconds that it took the destination, and what it has."""
        self._opened.wait(lambda: bool(self._answered))
        return self._answered.popleft()

    def about(self) -> About:
        """Await what the destination says of itself."""
        self._opened.wait(lambda: self._about is not None)
        assert self._about is not None
        return self._about

    def connect(self, *, direct: bool = True) -> None:
        """Open the data connections, as many as a transfer would; not `direct`: none can be opened."""
        welcome = self._opened.connect(direct=direct)
        self.cores = welcome.cores
        self.rtt, self.streams = self._opened.rtt, self._opened.first_streams

    def probe(self) -> Expected | None:
        """Measure how many bytes per second the path carries, after `connect`; None if that is not known. Sends
        noise, for at most PROBE_SECONDS; `stop` ends it sooner. The data connections are closed then. Without any,
        no answer may be awaited meanwhile."""
        if not self.streams:
            self.rtt = self._control_rtt()
        session = self._opened
        samples = RateSamples(self.rtt, self._config.rate)
        began = time.monotonic()
        session.pool.queue.capacity = _QUEUED if self.streams else _SEGMENT_CONTROL
        threading.Thread(target=self._feed, name="probe", daemon=True).start()
        while not self._stop.wait(_LOOK):
            session.check()
            seconds = time.monotonic() - began
            arrived = session.pool.arrived if self.streams else self._arrived
            samples.add(seconds, arrived)
            if seconds > PROBE_SECONDS or arrived >= PROBE_BYTES or samples.is_steady:
                break
        self._stop.set()
        session.pool.drop()
        return samples.rate()

    def stop(self) -> None:
        """End the measurement now; from any thread."""
        self._stop.set()

    def end(self) -> None:
        """End the measurement in order, if it was begun."""
        session = self._session
        if session is None or session.done is not None:
            return
        session.pool.ending = True
        session.send(End(bytes(32), 0))
        until = time.monotonic() + _END_SECONDS
        session.wait(lambda: session.done is not None or time.monotonic() > until)

    def close(self) -> None:
        """End the session and the destination's process. More than once does no harm."""
        self._stop.set()
        if self._remote is not None:
            self._remote.close()
        if self._session is not None:
            self._session.close()

    @property
    def bytes_sent(self) -> int:
        """Sealed bytes sent and received."""
        return self._opened.bytes_wire

    @property
    def _opened(self) -> SourceSession:
        assert self._session is not None
        return self._session

    def _control_rtt(self) -> float:
        """Measure the RTT of the control channel, when nothing else waits on it."""
        began = time.monotonic()
        self.ask(Question(0, ()))
        self.answer()
        return time.monotonic() - began

    def _feed(self) -> None:
        """Send noise until the measurement ends."""
        length = _SEGMENT if self.streams else _SEGMENT_CONTROL
        noise, sent = os.urandom(length), 0
        queue = self._opened.pool.queue
        while not self._stop.is_set() and sent < PROBE_BYTES:
            if not self.streams and sent - self._arrived >= _INFLIGHT_CONTROL:
                self._stop.wait(_LOOK / 4)
                continue
            if not queue.put(Segment(sent // length, Codec.STORED, length, noise)):
                return
            sent += length

    def _acknowledged(self, frames: list[Sent]) -> None:
        self._arrived += sum(frame.length for frame in frames if isinstance(frame, Segment))

    def _handle(self, frame: Frame) -> None:
        session = self._session
        if isinstance(frame, Note) and self._about is None:
            self._about = About.of(note_fields(frame.text), len(self._job.images))
        elif isinstance(frame, Answer) and self._asked:
            question = self._asked.popleft()
            size = self._job.images[question.number].size
            self._answered.append(unpack_answer(bytes(frame.data), question, size))
        else:
            raise PeerError("the far side sent something in a measurement that was not asked for")
        if session is not None:
            session.notify()
