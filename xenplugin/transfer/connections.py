"""The connections that the destination of a session has accepted.

A peer that connects is a stranger until it has proved itself by a frame that is authentic. What strangers send
touches nothing of the session, though they may have seen its identifier on the path. A record that does not
authenticate ends its connection, several in a row the session; an authentic one that breaks the rules ends it at
once.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

from xenplugin.codec.seal import Aead, Keys
from xenplugin.errors import PeerError, TamperError, XenpluginError
from xenplugin.link import listener, tcp
from xenplugin.link.damage import DamageLimit
from xenplugin.link.endpoint import Endpoint, SocketEndpoint
from xenplugin.transfer.job import Job
from xenplugin.wire import states
from xenplugin.wire.frames import Error, Frame, Welcome
from xenplugin.wire.preamble import Carrier, Preamble
from xenplugin.wire.session import Reader, Writer

#: Bytes of a frame that come while nothing may be heard, at least.
_LEAST = 1024


class AcceptedConnection:
    """One connection; `send` is safe from any thread."""

    def __init__(self, number: int, endpoint: Endpoint, writer: Writer) -> None:
        self.number = number
        self.endpoint = endpoint
        self._writer = writer
        self._lock = threading.Lock()

    def send(self, frame: Frame) -> None:
        """Seal and send one frame. Raises OSError."""
        with self._lock:
            self.endpoint.send(*self._writer.pack(frame))


#: Handles the frames of one connection to its end.
FrameHandler: TypeAlias = Callable[[AcceptedConnection, Iterator[Frame]], None]


class Connections:
    """The connections of `job`, of which data connections keep to `table`. One on which nothing came for `silence`
    seconds is lost."""

    def __init__(self, job: Job, keys: Keys, table: states.Table, silence: float) -> None:
        self._job = job
        self._keys = keys
        self._table = table
        self._silence = silence
        self._connections: dict[int, AcceptedConnection] = {}
        self._past = 0  # bytes that connections carried which are gone
        self._damage = DamageLimit()
        self._numbers = {0}
        self._lock = threading.Lock()

    def accept_control(self, preamble: Preamble) -> Aead:
        """Return the opener of the control channel's frames. Raises PeerError."""
        if preamble.number != 0:
            raise PeerError("the control channel must be connection 0")
        return self._accept(preamble)

    def add_control(self, endpoint: Endpoint, preamble: Preamble) -> AcceptedConnection:
        """Add the control channel, whose first frame was authentic."""
        control = AcceptedConnection(0, endpoint, Writer(self._keys.backward(preamble)))
        self._connections[0] = control
        return control

    def _accept(self, preamble: Preamble) -> Aead:
        job = self._job
        if preamble.session != job.session or preamble.carrier is not Carrier.CONNECTION:
            raise PeerError("a connection belongs to another session")
        if preamble.cipher is not job.cipher:
            raise PeerError("a connection uses another cipher than the job")
        return self._keys.forward(preamble)

    def _check(self, number: int) -> None:
        if number in self._numbers:
            raise PeerError(f"connection number {number} is used twice")

    def serve(
        self,
        handle: FrameHandler,
        failed: Callable[[BaseException], None],
        sock: socket.socket,
        known: Callable[[], None],
    ) -> None:
        """Wait until the peer behind `sock` has proved itself, call `known` (link.listener), and have `handle` take
        its frames to the connection's end. `failed` is called with an error that ends the session."""
        endpoint = SocketEndpoint(sock)
        preambles: list[Preamble] = []

        def accept(preamble: Preamble) -> Aead:
            preambles.append(preamble)
            with self._lock:
                self._check(preamble.number)
            return self._accept(preamble)

        connection: AcceptedConnection | None = None
        reader = Reader(self._table, accept=accept, size=self._job.size)
        try:
            frames = receive(endpoint, reader)
            with _patience(endpoint):
                if next(frames, None) is None:
                    return
            with self._lock:
                self._check(preambles[0].number)
                self._numbers.add(preambles[0].number)
            known()
            writer = Writer(self._keys.backward(preambles[0]))
            connection = AcceptedConnection(preambles[0].number, endpoint, writer)
            tcp.tune(sock, self._silence, None)
            endpoint.limit_silence(self._silence, _LEAST)
            connection.send(Welcome("{}"))  # before another thread may send a ping
            with self._lock:
                self._connections[connection.number] = connection
            handle(connection, frames)
        except OSError:
            pass  # lost: the source notices as well, and comes again under a new number
        except XenpluginError as exc:
            if connection is not None and reader.damaged:
                self._drop_damaged(connection, endpoint, failed)
            elif connection is not None:
                failed(exc)
        except Exception as exc:  # a bug must end the session, not hang it
            failed(exc)
        finally:
            if connection is not None:
                self._remove(connection)
            endpoint.close()

    def _remove(self, connection: AcceptedConnection) -> None:
        with self._lock:
            if self._connections.pop(connection.number, None) is not None:
                self._past += connection.endpoint.carried

    def _drop_damaged(
        self, connection: AcceptedConnection, endpoint: SocketEndpoint, failed: Callable[[BaseException], None]
    ) -> None:
        """Tell the source that a record was damaged; what was on its way here is dropped and comes again."""
        self._remove(connection)
        with self._lock:
            carried = self._past + sum(other.endpoint.carried for other in self._connections.values())
        try:
            self._damage.add(carried)
        except TamperError as exc:
            failed(exc)
            return
        with contextlib.suppress(OSError):
            connection.send(Error(TamperError.code, "a damaged record"))
            endpoint.drain()

    def alive(self) -> list[AcceptedConnection]:
        """Return the connections there are, the control channel included."""
        with self._lock:
            return list(self._connections.values())

    def close(self) -> None:
        """End all but the control channel."""
        for connection in self.alive():
            if connection.number:
                connection.endpoint.close()


def receive(endpoint: Endpoint, reader: Reader) -> Iterator[Frame]:
    """Yield frames until the source closes. Raises OSError, TamperError, PeerError."""
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
