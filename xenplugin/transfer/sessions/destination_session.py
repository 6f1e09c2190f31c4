"""The destination's end of a session (transfer.sessions.session), whatever it moves: the job, the control channel,
listening for data connections, and the patience with a source that is not heard.

Threads: those of transfer.sessions.session, and a reader for each data connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from xenplugin.codec.seal import Keys
from xenplugin.config import Config
from xenplugin.errors import LinkError, PeerError, XenpluginError
from xenplugin.link import listener
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.transfer.chunks.packing import CORES
from xenplugin.transfer.sessions.connections import HEAD, AcceptedConnection, Connections, FrameHandler
from xenplugin.transfer.sessions.job import IMAGE, MAX_LINE, Job
from xenplugin.transfer.sessions.session import FrameSink, Silence, TransferSession
from xenplugin.wire import states
from xenplugin.wire.frames import Frame, Image, Welcome
from xenplugin.wire.session import Reader

#: Seconds between looks while waiting.
_TICK = 1.0


@dataclass(frozen=True)
class SourceProcess:
    """The source as messages call it, and why it has `ended`; `hint`: of a link that was lost."""

    name: str = "the source"
    ended: Callable[[], XenpluginError] = lambda: LinkError("the source went away")
    hint: str | None = None


STARTED_BY_SOURCE = SourceProcess()


def read_job(channel: PipeEndpoint, source: SourceProcess = STARTED_BY_SOURCE) -> Job:
    """Read the source's job from `channel`, and nothing beyond it. Raises XenpluginError."""
    line = read_line(channel, "the job")
    if line is None:
        raise source.ended()
    return Job.parse(line)


def read_line(channel: PipeEndpoint, what: str) -> bytes | None:
    """Read one line, `what`, with its line feed from `channel`, and nothing beyond it; None if the channel ends
    before. Raises PeerError, LinkError."""
    line = bytearray()
    byte = bytearray(1)
    while not line.endswith(b"\n"):
        if len(line) >= MAX_LINE:
            raise PeerError(f"{what} is longer than {MAX_LINE} bytes")
        try:
            if not channel.receive_into(memoryview(byte)):
                return None
        except OSError as exc:
            raise LinkError(f"the control channel failed: {exc.strerror}") from None
        line += byte
    return bytes(line)


class DestinationSession(TransferSession):
    """The session of `job` with a source that has proved itself. Made by `accept`."""

    control: AcceptedConnection

    def __init__(
        self,
        control: AcceptedConnection,
        frames: _ControlFrames,
        connections: Connections,
        config: Config,
        job: Job,
        source: SourceProcess,
    ) -> None:
        super().__init__(control)
        self._source = source
        self._frames = frames
        self._connections = connections
        self._config = config
        self._job = job
        self._listener: listener.Listener | None = None
        self._handle: FrameHandler | None = None

    @classmethod
    def accept(
        cls,
        channel: PipeEndpoint,
        random: bytes,
        config: Config,
        job: Job,
        source: SourceProcess = STARTED_BY_SOURCE,
    ) -> DestinationSession:
        """Wait until the source has proved itself over `channel`; `random` is the one that the ready line gave.
        Raises XenpluginError, OSError."""
        forward, data = states.FORWARD_CONTROL, states.FORWARD_DATA
        if job.kind != IMAGE:
            forward, data = states.DOMAIN_FORWARD_CONTROL, states.DOMAIN_FORWARD_DATA
        connections = Connections(job, Keys(job.secret, random), data, config.silence)
        reader = Reader(forward, accept=connections.accept_control, size=job.size)
        frames = _ControlFrames(channel, reader, Silence(source.name, config, source.hint))
        if not isinstance(next(frames, None), Image) or reader.preamble is None:
            raise source.ended()
        return cls(connections.add_control(channel, reader.preamble), frames, connections, config, job, source)

    def serve(self, handle: FrameHandler, **fields: Any) -> None:
        """Listen for data connections, send WELCOME with `fields`, and have `handle` called for every connection.
        Raises OSError."""
        self._handle = handle
        sock = listener.bind(self._config.port_range, self._job.local)
        if sock is not None:
            prove = partial(self._connections.prove, handle, self.fail)
            self._listener = listener.Listener(sock, HEAD, prove)
        local = ["127.0.0.1"] if self._job.local else listener.addresses()
        fields |= {"port": self._listener.port if self._listener else 0, "addresses": local, "cores": CORES}
        self.control.send(Welcome(json.dumps(fields)))
        self._start()

    def close(self) -> None:
        """End all but the control channel. More than once does no harm."""
        super().close()
        if self._listener is not None:
            self._listener.close()
        self._connections.close()

    def _wait_once(self) -> None:
        # A source behind a link that died unnoticed must not keep the target locked for ever.
        if not self._changed.wait(_TICK):
            self._frames.add_silence(_TICK)

    def _receive(self) -> None:
        assert self._handle is not None
        self._handle(self.control, self._frames)

    def _channel_ended(self) -> XenpluginError:
        return self._source.ended()

    def _kept_alive(self) -> Iterable[FrameSink]:
        return self._connections.alive()


class _ControlFrames(Iterator[Frame]):
    """The frames of the control channel to its end; silence counts only while the reader waits for bytes, not while
    a frame is being handled. Raises OSError, TamperError, PeerError."""

    def __init__(self, channel: PipeEndpoint, reader: Reader, silence: Silence) -> None:
        self._channel = channel
        self._reader = reader
        self._silence = silence
        self._waiting = False
        self._frames = self._receive()

    def __next__(self) -> Frame:
        return next(self._frames)

    def add_silence(self, seconds: float) -> None:
        """Nothing happened in the session for `seconds`. Raises LinkError."""
        if self._waiting:
            self._silence.add(seconds)

    def _receive(self) -> Iterator[Frame]:
        while True:
            self._silence.heard()
            self._waiting = True
            count = self._channel.receive_into(self._reader.space())
            self._waiting = False
            if not count:
                return
            yield from self._reader.advance(count)
