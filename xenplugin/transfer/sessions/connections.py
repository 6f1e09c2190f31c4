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
from functools import partial
from typing import TypeAlias

from xenplugin.codec.seal import Aead, Keys
from xenplugin.errors import PeerError, TamperError, XenpluginError
from xenplugin.link import tcp
from xenplugin.link.damage import DamageLimit
from xenplugin.link.endpoint import Endpoint, SocketEndpoint
from xenplugin.transfer.sessions.job import Job
from xenplugin.wire import states
from xenplugin.wire.frames import Error, Frame, Welcome
from xenplugin.wire.preamble import LENGTH as PREAMBLE_LENGTH
from xenplugin.wire.preamble import Carrier, Preamble
from xenplugin.wire.session import HEADER, TAG, Reader, Writer

#: Bytes with which a connection proves its peer: the preamble and IMAGE.
HEAD = PREAMBLE_LENGTH + HEADER + 1 + 8 + TAG
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

    def prove(
        self, handle: FrameHandler, failed: Callable[[BaseException], None], head: bytes
    ) -> Callable[[socket.socket], None] | None:
        """Return what serves the connection that begins with the HEAD bytes `head`, None if they do not prove that
        the source has sent them. `handle` takes the connection's frames to its end, `failed` is called with an
        error that ends the session. (No key is derived before the preamble is found to be one of this session.)"""
        try:
            reader = Reader(self._table, accept=self._accept_data, size=self._job.size)
            first = list(_frames_in(head, reader))
            if len(first) != 1 or reader.preamble is None:
                return None
            with self._lock:
                self._check(reader.preamble.number)
                self._numbers.add(reader.preamble.number)
            return partial(self._serve, handle, failed, reader, reader.preamble)
        except XenpluginError:
            return None
        except Exception as exc:  # a bug must end the session, not hang it
            failed(exc)
            return None

    def _accept_data(self, preamble: Preamble) -> Aead:
        with self._lock:
            self._check(preamble.number)
        return self._accept(preamble)

    def _serve(
        self,
        handle: FrameHandler,
        failed: Callable[[BaseException], None],
        reader: Reader,
        preamble: Preamble,
        sock: socket.socket,
    ) -> None:
        endpoint = SocketEndpoint(sock)
        connection = AcceptedConnection(preamble.number, endpoint, Writer(self._keys.backward(preamble)))
        try:
            tcp.tune(sock, self._silence, None)
            endpoint.limit_silence(self._silence, _LEAST)
            connection.send(Welcome("{}"))  # before another thread may send a ping
            with self._lock:
                self._connections[connection.number] = connection
            handle(connection, receive(endpoint, reader))
        except OSError:
            pass  # lost: the source notices as well, and comes again under a new number
        except XenpluginError as exc:
            if reader.damaged:
                self._drop_damaged(connection, endpoint, failed)
            else:
                failed(exc)
        except Exception as exc:  # a bug must end the session, not hang it
            failed(exc)
        finally:
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


def _frames_in(data: bytes, reader: Reader) -> Iterator[Frame]:
    """Yield the frames that `data` completes. Raises TamperError, PeerError."""
    view = memoryview(data)
    while len(view):
        space = reader.space()
        count = min(len(space), len(view))
        space[:count] = view[:count]
        view = view[count:]
        yield from reader.advance(count)
