"""N data connections that share one queue of frames, and heal.

Each connection has a thread that takes frames from the queue, seals and sends them, and one that reads
acknowledgements. A connection that is lost gives back what was not acknowledged (`send_again`) and is dialled
again with growing pauses; only when none was alive for `patience` seconds the pool fails.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

from xenplugin.errors import LinkError, PeerError, XenpluginError, from_code
from xenplugin.link import tcp
from xenplugin.link.connection import Connection
from xenplugin.link.endpoint import SocketEndpoint
from xenplugin.link.queue import SendQueue
from xenplugin.wire.frames import Ack, Error, Frame, Ping, Sent, Welcome

PING_EVERY = 5.0
_CAPACITY = 80 << 20
#: Seconds in which the receipt overtakes the end of a connection.
_RECEIPT_SECONDS = 2.0
#: Seconds between looks of a connection that is given nothing.
_IDLE_SECONDS = 0.5
#: Seconds to wait after a connection on which nothing was heard.
_SILENT_PAUSE = 1.0


class Pool:
    """`dial()` opens a data connection; `send_again(frames)` takes back what a lost one had not delivered;
    `failed(error)` is called once when there is no way on; `acknowledged(frames)` is told what arrived. Frames
    come back without their payload."""

    def __init__(
        self,
        dial: Callable[[], Connection],
        send_again: Callable[[list[Sent]], None],
        failed: Callable[[XenpluginError], None],
        notice: Callable[[str], None],
        *,
        patience: float,
        acknowledged: Callable[[list[Sent]], None] | None = None,
    ) -> None:
        self.queue = SendQueue(_CAPACITY)
        self.ending = False  #: the far side may close connections now, having received everything
        self._dial = dial
        self._send_again = send_again
        self._acknowledged = acknowledged
        self._failed = failed
        self._notice = notice
        self._patience = patience
        self._connections: set[Connection] = set()
        self._past_bytes = 0
        self._alive_at = time.monotonic()
        self._closed = threading.Event()
        self._has_failed = False
        self._lock = threading.Lock()
        self._counters: dict[int, tcp.Counters] = {}
        self._wanted = 0  # connections that were asked for
        self._idle: set[Connection] = set()  # alive, but given nothing
        self._all_used = threading.Event()

    def add(self, connection: Connection) -> None:
        """Send over `connection` from now on; its acknowledgements are read here."""
        self._wanted += 1
        self._register(connection)
        threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def open(self, count: int) -> None:
        """Dial `count` more connections, side by side."""
        self._wanted += count
        for _ in range(count):
            threading.Thread(target=self._run, args=(None,), daemon=True).start()

    def add_control(self, connection: Connection) -> None:
        """Send over `connection` as well, whose frames somebody else reads (the control channel)."""
        self._register(connection, reads=False)
        threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    @property
    def bytes_wire(self) -> int:
        """Sealed bytes sent and received."""
        with self._lock:
            return self._past_bytes + sum(connection.bytes_wire for connection in self._connections)

    @property
    def waiting(self) -> int:
        """Chunks and runs that wait to be sent, or for their acknowledgement."""
        with self._lock:
            return len(self.queue) + sum(connection.unacknowledged for connection in self._connections)

    @property
    def size(self) -> int:
        """Connections alive."""
        with self._lock:
            return len(self._connections)

    def grow(self, rate: float, rtt: float) -> None:
        """Add connections if `rate` (bytes/s) over `rtt` (seconds) is near what those there can hold."""
        self.open(tcp.more_streams(self._wanted, rate, rtt, tcp.largest_window()))

    def is_lossy(self) -> bool:
        """Whether the path has lost packets without being congested since the last call."""
        before, self._counters = self._counters, {}
        with self._lock:
            for connection, sock in self._sockets():
                if connection.lost is None:
                    with contextlib.suppress(OSError):
                        self._counters[connection.number] = tcp.counters(sock)
        both = sorted(before.keys() & self._counters.keys())
        return tcp.is_lossy([before[n] for n in both], [self._counters[n] for n in both])

    def set_congestion(self, name: str) -> None:
        """Use this congestion control on the connections there are."""
        with self._lock:
            for _, sock in self._sockets():
                tcp.set_congestion(sock, name)

    def use_few(self, keep: int, congestion: str) -> None:
        """Send over `keep` of the connections only, with this congestion control: little, now and then. One that is
        given nothing for a while begins in slow start again (RFC 5681, 4.1), unless it is controlled by BBR. One of
        these that is lost ends the others' rest. From now on little waits unsent in the kernel, for any of them."""
        with self._lock:
            connections = sorted(self._connections, key=lambda connection: connection.number)
            self._idle = set(connections[keep:])
            self._all_used.clear()
            for _, sock in self._sockets():
                tcp.set_unsent(sock, tcp.UNSENT_LAST)
        self.set_congestion(congestion)
        self.queue.wake()

    def use_all(self) -> None:
        """Send over all of them again."""
        with self._lock:
            self._idle = set()
            self._all_used.set()

    def close(self) -> None:
        """End all connections."""
        self._closed.set()
        self._all_used.set()
        self.queue.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            if connection.number:
                connection.abandon()

    def _sockets(self) -> Iterator[tuple[Connection, socket.socket]]:
        """The connections that are TCP's, which the control channel is not; under the lock."""
        for connection in self._connections:
            if isinstance(connection.endpoint, SocketEndpoint):
                yield connection, connection.endpoint.sock

    def _register(self, connection: Connection, reads: bool = True) -> None:
        connection.on_acknowledged = self._acknowledged
        with self._lock:
            self._connections.add(connection)
        if reads:
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _remove(self, connection: Connection) -> None:
        if connection not in self._idle:
            self.use_all()  # what it leaves must not wait for those that are given nothing
        with self._lock:
            if connection in self._connections:
                self._connections.remove(connection)
                self._past_bytes += connection.bytes_wire
                if connection.heard:
                    self._alive_at = time.monotonic()
        self._send_again(connection.abandon())

    def _run(self, connection: Connection | None) -> None:
        while not self._closed.is_set():
            if connection is None:
                connection = self._redial()
                if connection is None:
                    return
                self._register(connection)
            try:
                self._drive(connection)
            except OSError as exc:
                connection.lost = connection.lost or exc
            except XenpluginError as exc:
                self._fail(exc)
            if self._closed.wait(_RECEIPT_SECONDS if self.ending else 0):
                return
            self._remove(connection)
            if connection.number == 0:
                return  # the control channel's end is the session's, which its reader notices
            self._notice(f"connection {connection.number} was lost ({connection.lost}); opening another")
            if not connection.heard:
                self._closed.wait(_SILENT_PAUSE)  # something takes connections and leads nowhere
            connection = None

    def _drive(self, connection: Connection) -> None:
        """Send until it is lost (its reader says so in `connection.lost`) or the pool is closed."""
        while not self._closed.is_set() and connection.lost is None:
            if connection.spent and connection.number:
                raise ConnectionError("its key has sealed enough")
            frame: Frame | None = None
            if connection in self._idle:
                self._all_used.wait(_IDLE_SECONDS)
            else:
                frame = self.queue.get(lambda: connection.lost is not None or connection in self._idle, PING_EVERY)
            if frame is not None:
                connection.send(frame)
            elif connection.lost is None and not self._closed.is_set():
                connection.send(Ping())

    def _read(self, connection: Connection) -> None:
        try:
            for frame in connection.receive():
                connection.heard = True
                handle(connection, frame)
            connection.lost = connection.lost or ConnectionError("closed by the far side")
        except BlockingIOError:
            connection.lost = connection.lost or ConnectionError("nothing heard for too long")
        except OSError as exc:
            connection.lost = connection.lost or exc
        except XenpluginError as exc:
            self._fail(exc)
        self.queue.wake()
        if connection.lost is not None:
            connection.endpoint.close()

    def _redial(self) -> Connection | None:
        pause = 0.1
        why = "nothing comes back"
        while not self._closed.is_set():
            if self._is_out_of_patience():
                self._fail(
                    LinkError(
                        f"the link was lost for {self._patience:.0f} s ({why})",
                        hint="the same command again goes on where it was",
                    )
                )
                return None
            try:
                return self._dial()
            except (OSError, LinkError) as exc:
                why = str(exc)
            self._closed.wait(pause)
            pause = min(2 * pause, 5.0)
        return None

    def _is_out_of_patience(self) -> bool:
        """Whether nothing was heard on any connection for `patience` seconds: that one can be opened says
        nothing, a box on the way may take it and lead nowhere."""
        now = time.monotonic()
        with self._lock:
            if any(connection.heard for connection in self._connections):
                self._alive_at = now
            return now - self._alive_at > self._patience

    def _fail(self, error: XenpluginError) -> None:
        with self._lock:
            if self._closed.is_set() or self._has_failed:
                return
            self._has_failed = True
        self._failed(error)


def handle(connection: Connection, frame: Frame) -> None:
    """Handle a backward frame that any connection may carry. Raises PeerError, or the error reported."""
    if isinstance(frame, Ack):
        try:
            connection.acknowledged(frame.frames)
        except ValueError as exc:
            raise PeerError(f"connection {connection.number}: {exc}") from None
    elif isinstance(frame, Error):
        raise from_code(frame.code, frame.text)
    elif not isinstance(frame, Ping | Welcome):
        raise PeerError(f"an unexpected {frame.type.name} frame on connection {connection.number}")
