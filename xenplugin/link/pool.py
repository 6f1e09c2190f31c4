"""A pool of data connections that share one queue of frames and replace those that are lost.

Each connection has a thread that takes frames from the queue, seals and sends them, and one that reads
acknowledgements. When a connection is lost, its unacknowledged frames are returned to the owner and another one is
dialled, with growing pauses. One on which a record does not authenticate counts as lost. The pool fails only if no
connection was alive for `patience` seconds, or if several in a row were damaged.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

from xenplugin.errors import RESUME_HINT, LinkError, PeerError, TamperError, XenpluginError, from_code, unexpected
from xenplugin.link import tcp
from xenplugin.link.connection import Connection
from xenplugin.link.damage import Damaged, DamageLimit
from xenplugin.link.endpoint import SocketEndpoint
from xenplugin.link.queue import SendQueue
from xenplugin.wire.frames import Ack, Error, Frame, Ping, Sent, Welcome

PING_EVERY = 5.0
_CAPACITY = 80 << 20
#: Seconds to wait for the receipt after a connection has ended, before the end counts as a loss.
_RECEIPT_SECONDS = 2.0
#: Seconds after which a connection that is not used looks whether it is lost, and sends a ping.
_IDLE_SECONDS = 0.5
#: Seconds to wait before another dial after a connection on which nothing was received.
_SILENT_PAUSE = 1.0


class Stuck(ConnectionError):
    """Nothing large arrives over a connection, though small packets do."""


class Pool:
    """`dial()` opens a data connection. `send_again(frames)` is called with what a lost connection had not
    delivered, `acknowledged(frames)` with what arrived; both get frames without payload. `failed(error)` is called
    once, when the pool gives up. `stuck(connection)` is called when nothing large arrives over a connection; it
    returns whether to open another. All are called from the pool's threads."""

    def __init__(
        self,
        dial: Callable[[], Connection],
        send_again: Callable[[list[Sent]], None],
        failed: Callable[[XenpluginError], None],
        notice: Callable[[str], None],
        *,
        patience: float,
        acknowledged: Callable[[list[Sent]], None] | None = None,
        stuck: Callable[[Connection], bool] = lambda connection: True,
    ) -> None:
        self.queue = SendQueue(_CAPACITY)
        self.ending = False  #: everything was sent, so the far side may close connections now
        self._dial = dial
        self._send_again = send_again
        self._acknowledged = acknowledged
        self._failed = failed
        self._notice = notice
        self._patience = patience
        self._connections: set[Connection] = set()
        self._stuck = stuck
        self._only_control = False  # data connections are of no use on this path
        self._past_bytes = self._past_confirmed = 0
        self._alive_at = time.monotonic()
        self._closed = threading.Event()
        self._has_failed = False
        self._lock = threading.Lock()
        self._counters: dict[int, tcp.Counters] = {}
        self._wanted = 0  # connections that were asked for, alive or not
        self._idle: set[Connection] = set()  # alive, but not used to send data
        self._all_used = threading.Event()
        self._damage = DamageLimit()

    def add(self, connection: Connection) -> None:
        """Send over `connection` from now on, and read its acknowledgements."""
        self._wanted += 1
        self._register(connection)
        threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def open(self, count: int) -> None:
        """Dial `count` more connections, all at the same time."""
        self._wanted += count
        for _ in range(count):
            threading.Thread(target=self._run, args=(None,), daemon=True).start()

    def add_control(self, connection: Connection) -> None:
        """Send over the control channel as well; its owner reads the frames that arrive on it."""
        self._register(connection, reads=False)
        threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    @property
    def bytes_wire(self) -> int:
        """Sealed bytes sent and received, on all connections so far."""
        with self._lock:
            return self._past_bytes + sum(connection.bytes_wire for connection in self._connections)

    @property
    def delivered(self) -> int:
        """Bytes of frames with data that have arrived, on all connections so far. What a lost connection had not
        acknowledged is sent again, and so counts no more."""
        with self._lock:
            return self._past_confirmed + sum(connection.delivered for connection in self._connections)

    @property
    def arrived(self) -> int:
        """The same, with those that have arrived after a gap: they grow as evenly as the path carries them."""
        with self._lock:
            return self._past_confirmed + sum(connection.arrived for connection in self._connections)

    @property
    def waiting(self) -> int:
        """Number of frames that wait to be sent or to be acknowledged."""
        with self._lock:
            return len(self.queue) + sum(connection.unacknowledged for connection in self._connections)

    @property
    def size(self) -> int:
        """Number of connections that are alive."""
        with self._lock:
            return len(self._connections)

    def grow(self, rate: float, rtt: float) -> None:
        """Add connections if `rate` (bytes/s) at `rtt` (seconds) comes near what the present ones can carry."""
        self.open(tcp.more_streams(self._wanted, rate, rtt, tcp.largest_window()))

    def is_lossy(self) -> bool:
        """Return whether the path has lost packets without congestion since the last call."""
        before, self._counters = self._counters, {}
        with self._lock:
            for connection, sock in self._sockets():
                if connection.lost is None:
                    with contextlib.suppress(OSError):
                        self._counters[connection.number] = tcp.counters(sock)
        both = sorted(before.keys() & self._counters.keys())
        return tcp.is_lossy([before[n] for n in both], [self._counters[n] for n in both])

    def set_congestion(self, name: str) -> None:
        """Use the congestion control `name` on all present connections."""
        with self._lock:
            for _, sock in self._sockets():
                tcp.set_congestion(sock, name)

    def use_few(self, keep: int, congestion: str) -> None:
        """Send over `keep` of the connections only, all with the congestion control `congestion`; for little data
        that comes now and then. A connection that sends nothing for a while begins in slow start again (RFC 5681,
        4.1), unless BBR controls it. If one of those in use is lost, all are used again. From now on each
        connection keeps at most `tcp.UNSENT_LAST` bytes unsent in the kernel."""
        with self._lock:
            connections = sorted(self._connections, key=lambda connection: connection.number)
            self._idle = set(connections[keep:])
            self._all_used.clear()
            for _, sock in self._sockets():
                tcp.set_unsent(sock, tcp.UNSENT_LAST)
        self.set_congestion(congestion)
        self.queue.wake()

    def use_all(self) -> None:
        """Undo `use_few`: send over all connections."""
        with self._lock:
            self._idle = set()
            self._all_used.set()

    def drop(self) -> None:
        """End all connections, and drop what the kernel still has to send over them."""
        with self._lock:
            for _, sock in self._sockets():
                tcp.drop_unsent(sock)
        self.close()

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
        """Yield the connections over TCP, with their sockets. The control channel is not one. Needs the lock."""
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
            self.use_all()  # its frames must not wait while the others are not used
        with self._lock:
            if connection in self._connections:
                self._connections.remove(connection)
                self._past_bytes += connection.bytes_wire
                self._past_confirmed += connection.confirmed
                if connection.is_alive:
                    self._alive_at = time.monotonic()
        self._send_again(connection.abandon())

    def _run(self, connection: Connection | None) -> None:
        try:
            self._keep_driving(connection)
        except Exception as exc:  # what ends this thread must end the session, not hang it
            self._fail(unexpected(exc))

    def _keep_driving(self, connection: Connection | None) -> None:
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
            damaged = isinstance(connection.lost, Damaged)
            if self._closed.wait(_RECEIPT_SECONDS if self.ending and not damaged else 0):
                return
            self._remove(connection)
            if connection.number == 0:
                return  # the session ends with the control channel; its reader notices that
            if isinstance(connection.lost, Stuck) and not self._stuck(connection):
                self._only_control = True
                return
            why = f"brought {connection.lost}" if damaged else f"was lost ({connection.lost})"
            self._notice(f"connection {connection.number} {why}; opening another")
            if not connection.heard:
                self._closed.wait(_SILENT_PAUSE)  # something accepts connections but does not forward them
            connection = None

    def _drive(self, connection: Connection) -> None:
        """Send until the connection is lost (its reader sets `connection.lost`) or the pool is closed."""
        while not self._closed.is_set() and connection.lost is None:
            if connection.spent and connection.number:
                raise ConnectionError("its key has sealed as many frames as it may")
            frame: Sent | None = None
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
            connection.lost = connection.lost or ConnectionError("closed by the other end")
        except BlockingIOError:
            connection.lost = connection.lost or ConnectionError("nothing was received for too long")
        except OSError as exc:
            connection.lost = connection.lost or exc
        except Exception as exc:
            if connection.damaged:
                self._note_damage(connection)
            else:
                self._fail(unexpected(exc))
        self.queue.wake()
        if connection.lost is not None:
            connection.endpoint.close()

    def _note_damage(self, connection: Connection) -> None:
        connection.lost = connection.lost or Damaged("a damaged record")
        try:
            self._damage.add(self.delivered)
        except TamperError as exc:
            self._fail(exc)

    def _redial(self) -> Connection | None:
        pause = 0.1
        why = "connections open, but nothing is received on them"
        while not self._closed.is_set() and not self._only_control:
            if self._is_out_of_patience():
                self._fail(
                    LinkError(
                        f"the link was lost for {self._patience:.0f} s ({why})",
                        hint=RESUME_HINT,
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

    def drop_stuck(self) -> None:
        """Give up the connections over which nothing large arrives."""
        with self._lock:
            stuck = [connection for connection in self._connections if connection.is_stuck]
        for connection in stuck:
            connection.lost = connection.lost or Stuck("its large packets do not arrive")
            connection.endpoint.close()
        if stuck:
            self.queue.wake()

    def _is_out_of_patience(self) -> bool:
        """Return whether no connection was alive for `patience` seconds."""
        now = time.monotonic()
        with self._lock:
            if any(connection.is_alive for connection in self._connections):
                self._alive_at = now
            return now - self._alive_at > self._patience

    def _fail(self, error: XenpluginError) -> None:
        with self._lock:
            if self._closed.is_set() or self._has_failed:
                return
            self._has_failed = True
        self._failed(error)


def handle(connection: Connection, frame: Frame) -> None:
    """Handle a backward frame that any connection may carry. Raises PeerError, or the error in an ERROR frame:
    Damaged if that concerns this connection only."""
    if isinstance(frame, Ack):
        try:
            connection.acknowledged(frame.frames)
        except ValueError as exc:
            raise PeerError(f"connection {connection.number}: {exc}") from None
    elif isinstance(frame, Error):
        if connection.number and frame.code == TamperError.code:
            raise Damaged("the far side a damaged record")
        raise from_code(frame.code, frame.text)
    elif not isinstance(frame, Ping | Welcome):
        raise PeerError(f"an unexpected {frame.type.name} frame on connection {connection.number}")
