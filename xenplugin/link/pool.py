"""N data connections that share one queue of frames, and heal.

Each connection has a thread that takes frames from the queue, seals and sends them, and one that reads
acknowledgements. A connection that is lost gives back what was not acknowledged (`redo`) and is dialled
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
_LAST_WORD = 2.0
#: Seconds between looks of a connection that is given nothing.
_REST = 0.5
#: Seconds to wait after a connection on which nothing was heard.
_UNHEARD = 1.0


class Pool:
    """`dial()` opens a data connection; `redo(frames)` takes back what a lost one had not delivered;
    `failed(error)` is called once when there is no way on; `acknowledged(frames)` is told what arrived. Frames
    come back without their payload."""

    def __init__(
        self,
        dial: Callable[[], Connection],
        redo: Callable[[list[Sent]], None],
        failed: Callable[[XenpluginError], None],
        notice: Callable[[str], None],
        *,
        patience: float,
        acknowledged: Callable[[list[Sent]], None] | None = None,
    ) -> None:
        self.queue = SendQueue(_CAPACITY)
        self.ending = False  #: the far side may close connections now, having received everything
        self._dial = dial
        self._redo = redo
        self._acknowledged = acknowledged
        self._failed = failed
        self._notice = notice
        self._patience = patience
        self._lines: set[Connection] = set()
        self._past_bytes = 0
        self._alive_at = time.monotonic()
        self._closed = threading.Event()
        self._has_failed = False
        self._lock = threading.Lock()
        self._courses: dict[int, tcp.Course] = {}
        self._wanted = 0  # connections that were asked for
        self._resting: set[Connection] = set()  # alive, but given nothing
        self._roused = threading.Event()

    def add(self, line: Connection) -> None:
        """Send over `line` from now on; its acknowledgements are read here."""
        self._wanted += 1
        self._enlist(line)
        threading.Thread(target=self._run, args=(line,), daemon=True).start()

    def open(self, count: int) -> None:
        """Dial `count` more connections, side by side."""
        self._wanted += count
        for _ in range(count):
            threading.Thread(target=self._run, args=(None,), daemon=True).start()

    def share(self, line: Connection) -> None:
        """Send over `line` as well, whose frames somebody else reads (the control channel)."""
        self._enlist(line, reads=False)
        threading.Thread(target=self._run, args=(line,), daemon=True).start()

    @property
    def bytes_wire(self) -> int:
        """Sealed bytes sent and received."""
        with self._lock:
            return self._past_bytes + sum(line.bytes_wire for line in self._lines)

    @property
    def waiting(self) -> int:
        """Chunks and runs that wait to be sent, or for their acknowledgement."""
        with self._lock:
            return len(self.queue) + sum(line.unacknowledged for line in self._lines)

    @property
    def size(self) -> int:
        """Connections alive."""
        with self._lock:
            return len(self._lines)

    def grow(self, rate: float, rtt: float) -> None:
        """Add connections if `rate` (bytes/s) over `rtt` (seconds) is near what those there can hold."""
        self.open(tcp.more_streams(self._wanted, rate, rtt, tcp.largest_window()))

    def is_lossy(self) -> bool:
        """Whether the path has lost packets without being congested since the last call."""
        before, self._courses = self._courses, {}
        with self._lock:
            for line, sock in self._sockets():
                if line.lost is None:
                    with contextlib.suppress(OSError):
                        self._courses[line.number] = tcp.look(sock)
        both = sorted(before.keys() & self._courses.keys())
        return tcp.is_lossy([before[n] for n in both], [self._courses[n] for n in both])

    def set_congestion(self, name: str) -> None:
        """Use this congestion control on the connections there are."""
        with self._lock:
            for _, sock in self._sockets():
                tcp.set_congestion(sock, name)

    def rest(self, keep: int, congestion: str) -> None:
        """Send over `keep` of the connections only, with this congestion control: little, now and then. One that is
        given nothing for a while begins in slow start again (RFC 5681, 4.1), unless it is controlled by BBR. One of
        these that is lost ends the others' rest. From now on little waits unsent in the kernel, for any of them."""
        with self._lock:
            lines = sorted(self._lines, key=lambda line: line.number)
            self._resting = set(lines[keep:])
            self._roused.clear()
            for _, sock in self._sockets():
                tcp.set_unsent(sock, tcp.UNSENT_LAST)
        self.set_congestion(congestion)
        self.queue.wake()

    def rouse(self) -> None:
        """Send over all of them again."""
        with self._lock:
            self._resting = set()
            self._roused.set()

    def close(self) -> None:
        """End all connections."""
        self._closed.set()
        self._roused.set()
        self.queue.close()
        with self._lock:
            lines = list(self._lines)
        for line in lines:
            if line.number:
                line.abandon()

    def _sockets(self) -> Iterator[tuple[Connection, socket.socket]]:
        """The connections that are TCP's, which the control channel is not; under the lock."""
        for line in self._lines:
            if isinstance(line.endpoint, SocketEndpoint):
                yield line, line.endpoint.sock

    def _enlist(self, line: Connection, reads: bool = True) -> None:
        line.on_acknowledged = self._acknowledged
        with self._lock:
            self._lines.add(line)
        if reads:
            threading.Thread(target=self._read, args=(line,), daemon=True).start()

    def _strike(self, line: Connection) -> None:
        if line not in self._resting:
            self.rouse()  # what it leaves must not wait for those that are given nothing
        with self._lock:
            if line in self._lines:
                self._lines.remove(line)
                self._past_bytes += line.bytes_wire
                if line.heard:
                    self._alive_at = time.monotonic()
        self._redo(line.abandon())

    def _run(self, line: Connection | None) -> None:
        while not self._closed.is_set():
            if line is None:
                line = self._redial()
                if line is None:
                    return
                self._enlist(line)
            try:
                self._drive(line)
            except OSError as exc:
                line.lost = line.lost or exc
            except XenpluginError as exc:
                self._fail(exc)
            if self._closed.wait(_LAST_WORD if self.ending else 0):
                return
            self._strike(line)
            if line.number == 0:
                return  # the control channel's end is the session's, which its reader notices
            self._notice(f"connection {line.number} was lost ({line.lost}); opening another")
            if not line.heard:
                self._closed.wait(_UNHEARD)  # something takes connections and leads nowhere
            line = None

    def _drive(self, line: Connection) -> None:
        """Send until it is lost (its reader says so in `line.lost`) or the pool is closed."""
        while not self._closed.is_set() and line.lost is None:
            if line.spent and line.number:
                raise ConnectionError("its key has sealed enough")
            frame: Frame | None = None
            if line in self._resting:
                self._roused.wait(_REST)
            else:
                frame = self.queue.get(lambda: line.lost is not None or line in self._resting, PING_EVERY)
            if frame is not None:
                line.send(frame)
            elif line.lost is None and not self._closed.is_set():
                line.send(Ping())

    def _read(self, line: Connection) -> None:
        try:
            for frame in line.receive():
                line.heard = True
                take(line, frame)
            line.lost = line.lost or ConnectionError("closed by the far side")
        except BlockingIOError:
            line.lost = line.lost or ConnectionError("nothing heard for too long")
        except OSError as exc:
            line.lost = line.lost or exc
        except XenpluginError as exc:
            self._fail(exc)
        self.queue.wake()
        if line.lost is not None:
            line.endpoint.close()

    def _redial(self) -> Connection | None:
        pause = 0.1
        why = "nothing comes back"
        while not self._closed.is_set():
            if self._hopeless():
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

    def _hopeless(self) -> bool:
        """Whether nothing was heard on any connection for `patience` seconds: that one can be opened says
        nothing, a box on the way may take it and lead nowhere."""
        now = time.monotonic()
        with self._lock:
            if any(line.heard for line in self._lines):
                self._alive_at = now
            return now - self._alive_at > self._patience

    def _fail(self, error: XenpluginError) -> None:
        with self._lock:
            if self._closed.is_set() or self._has_failed:
                return
            self._has_failed = True
        self._failed(error)


def take(line: Connection, frame: Frame) -> None:
    """Handle a backward frame that any connection may carry. Raises PeerError, or the error reported."""
    if isinstance(frame, Ack):
        try:
            line.acknowledged(frame.frames)
        except ValueError as exc:
            raise PeerError(f"connection {line.number}: {exc}") from None
    elif isinstance(frame, Error):
        raise from_code(frame.code, frame.text)
    elif not isinstance(frame, Ping | Welcome):
        raise PeerError(f"an unexpected {frame.type.name} frame on connection {line.number}")
