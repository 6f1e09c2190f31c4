"""The connections of a session as its acceptor has them: who may come in, who is there, and who is quiet.

Whoever connects is a stranger until a frame of his opens. What strangers send touches nothing of the session,
though they may have seen its name on the path; what a known connection sends can end it.
"""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from xenplugin.codec.seal import Aead, Keys
from xenplugin.errors import PeerError, XenpluginError
from xenplugin.link import listener, tcp
from xenplugin.link.endpoint import Endpoint, SocketEndpoint
from xenplugin.transfer.job import Job
from xenplugin.wire import states
from xenplugin.wire.frames import Frame, Ping, Welcome
from xenplugin.wire.preamble import Carrier, Preamble
from xenplugin.wire.session import Reader, Writer


class AcceptedConnection:
    """One connection; writing is safe from any thread."""

    def __init__(self, number: int, endpoint: Endpoint, writer: Writer) -> None:
        self.number = number
        self.endpoint = endpoint
        self._writer = writer
        self._lock = threading.Lock()

    def send(self, frame: Frame) -> None:
        """Raises OSError."""
        with self._lock:
            self.endpoint.send(*self._writer.pack(frame))


class Connections:
    """The connections of `job`; data connections keep to `table`. `serve(line, frames)` handles one to its end;
    `failed` is told what ends the session; `silence`: seconds without a word after which a connection is lost."""

    def __init__(
        self,
        job: Job,
        keys: Keys,
        table: states.Table,
        silence: float,
        serve: Callable[[AcceptedConnection, Iterator[Frame]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._job = job
        self._keys = keys
        self._table = table
        self._silence = silence
        self._serve = serve
        self._failed = failed
        self._lines: dict[int, AcceptedConnection] = {}
        self._numbers = {0}
        self._lock = threading.Lock()

    def accept_control(self, preamble: Preamble) -> Aead:
        """What opens the control channel. Raises PeerError."""
        if preamble.number != 0:
            raise PeerError("the control channel must be connection 0")
        return self._accept(preamble)

    def add_control(self, endpoint: Endpoint, preamble: Preamble) -> AcceptedConnection:
        """The control channel, whose first frame opened."""
        control = AcceptedConnection(0, endpoint, Writer(self._keys.backward(preamble)))
        self._lines[0] = control
        return control

    def _accept(self, preamble: Preamble) -> Aead:
        job = self._job
        if preamble.session != job.session or preamble.carrier is not Carrier.CONNECTION:
            raise PeerError("a connection of another session")
        if preamble.cipher is not job.cipher:
            raise PeerError("a connection with another cipher than was agreed")
        return self._keys.forward(preamble)

    def _check(self, number: int) -> None:
        if number in self._numbers:
            raise PeerError(f"connection number {number} again")

    def welcome(self, sock: socket.socket, known: Callable[[], None]) -> None:
        """A connection that must first prove itself; then it is served to its end (listener.Listener)."""
        endpoint = SocketEndpoint(sock)
        preambles: list[Preamble] = []

        def accept(preamble: Preamble) -> Aead:
            preambles.append(preamble)
            with self._lock:
                self._check(preamble.number)
            return self._accept(preamble)

        line: AcceptedConnection | None = None
        try:
            reader = Reader(self._table, accept=accept, size=self._job.size)
            frames = receive(endpoint, reader)
            with _patience(endpoint):
                if next(frames, None) is None:
                    return
            with self._lock:
                self._check(preambles[0].number)
                self._numbers.add(preambles[0].number)
            known()
            line = AcceptedConnection(preambles[0].number, endpoint, Writer(self._keys.backward(preambles[0])))
            tcp.tune(sock, self._silence, None)
            silence = struct.pack("=QQ", math.ceil(self._silence), 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, silence)
            line.send(Welcome("{}"))  # before another thread may send a ping
            with self._lock:
                self._lines[line.number] = line
            self._serve(line, frames)
        except OSError:
            pass  # lost: the source notices as well, and comes again under a new number
        except XenpluginError as exc:
            if line is not None:
                self._failed(exc)
        except Exception as exc:  # a bug must end the session, not hang it
            self._failed(exc)
        finally:
            if line is not None:
                with self._lock:
                    self._lines.pop(line.number, None)
            endpoint.close()

    def ping(self) -> None:
        """Say on each connection that this side is alive."""
        with self._lock:
            lines = list(self._lines.values())
        for line in lines:
            with contextlib.suppress(OSError):
                line.send(Ping())

    def close(self) -> None:
        """End all but the control channel."""
        for line in list(self._lines.values()):
            if line.number:
                line.endpoint.close()


def receive(endpoint: Endpoint, reader: Reader) -> Iterator[Frame]:
    """Frames until the far side closes. Raises OSError, TamperError, PeerError."""
    while count := endpoint.receive_into(reader.space()):
        yield from reader.advance(count)


@contextlib.contextmanager
def _patience(endpoint: Endpoint) -> Iterator[None]:
    timer = threading.Timer(listener.UNPROVEN_SECONDS, endpoint.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
