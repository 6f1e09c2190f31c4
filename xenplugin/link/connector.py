"""Opens data connections: finds the far side's address that works, then connects to it as often as needed.

The far side names its addresses, the user may name one, ssh knows another. All are tried at the same time, the
likeliest a moment before the others. The first over which the far side *proves itself*, by a WELCOME that opens,
is used; so another machine with the same private address is never mistaken for the far side. While the first
address that answers is being proved, the other connections that will be wanted there are dialled already, which
saves a round trip; nothing is sent over them until then.
"""

from __future__ import annotations

import errno
import queue
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from xenplugin.codec.seal import Keys
from xenplugin.errors import LinkError, XenpluginError
from xenplugin.link import tcp
from xenplugin.link.connection import Connection
from xenplugin.link.endpoint import Endpoint, SocketEndpoint
from xenplugin.link.rate import Pacer
from xenplugin.wire import states
from xenplugin.wire.frames import Image, Welcome
from xenplugin.wire.preamble import Carrier, Cipher, Preamble
from xenplugin.wire.session import MAX_SEALED, Reader, Writer

#: Seconds between the first attempts at two addresses.
_STAGGER = 0.25
#: Attempts at an address that answers and does not prove itself.
_TRIES = 2
#: Addresses of the destination that are tried.
_MOST_ADDRESSES = 16


def candidates(given: str | None, named: str | None, offered: Sequence[str]) -> list[str]:
    """Return the addresses to try: the `given` one alone, or the one that the far side is reached at (`named`, None
    if that is not known), and those that it has `offered`."""
    if given:
        return [given]
    return list(dict.fromkeys([*([named] if named else []), *offered]))[:_MOST_ADDRESSES]


@dataclass(frozen=True)
class ConnectionFactory:
    """Makes the connections of one session: its keys, its identity (16 bytes), the image's `size` in bytes."""

    keys: Keys
    identity: bytes
    cipher: Cipher
    size: int

    def make(self, number: int, endpoint: Endpoint, backward: states.Table) -> Connection:
        """Return a connection over `endpoint`; `backward` is the state table of the frames that arrive."""
        random = secrets.token_bytes(32)
        preamble = Preamble(self.cipher, Carrier.CONNECTION, number, self.identity, random)
        writer = Writer(self.keys.forward(preamble))
        reader = Reader(backward, opener=self.keys.backward(preamble), size=self.size)
        return Connection(number, endpoint, writer, reader, preamble.pack())


class Connector:
    """Opens data connections. `timeout`: seconds for opening one; `silence`: seconds after which one is lost;
    `congestion`: None lets the path decide; `unsent`: bytes that may wait in the kernel for each connection."""

    def __init__(
        self,
        factory: ConnectionFactory,
        *,
        timeout: float,
        silence: float,
        congestion: str | None = None,
        unsent: int = tcp.UNSENT,
        pacer: Pacer | None = None,
    ) -> None:
        self._factory = factory
        self.port = 0  #: the far side's; set before `first`
        self._timeout = timeout
        self._silence = silence
        self.wanted = congestion or tcp.CLEAN
        self._unsent = unsent
        self._pacer = pacer
        self._numbers = count(1)
        self._lock = threading.Lock()
        self.address: str | None = None
        self.rtt = 0.0
        self.congestion = ""
        self._ahead: str | None = None  # the address to which connections were dialled ahead
        self._promised = 0  # how many of these were not taken yet
        self._dialled: queue.SimpleQueue[Connection | OSError] = queue.SimpleQueue()
        self._segments = list(tcp.SEGMENTS)
        self.tried_all = False  #: nothing large has arrived, whatever the size of the segments

    def use_smaller_segments(self, failed: Connection) -> bool:
        """Open connections with smaller segments from now on, because nothing large has arrived over `failed`.
        Returns False if the smallest have been tried."""
        with self._lock:
            if failed.segment == self._segments[0]:  # else another connection was the first to fail
                self._segments.pop(0)
            if not self._segments:
                self._segments.append(tcp.SEGMENTS[-1])
                self.tried_all = True
            return not self.tried_all

    def first(self, addresses: Sequence[str], wanted: Callable[[float], int]) -> Connection | None:
        """Return a connection to the first of `addresses` that proves itself, None if none does in time.
        `wanted(rtt)` returns how many connections will be used at that RTT (seconds)."""
        answers: queue.SimpleQueue[tuple[str, Connection | None]] = queue.SimpleQueue()
        stop = threading.Event()

        def attempt(address: str, delay: float) -> None:
            if stop.wait(delay):
                answers.put((address, None))
                return
            connection = None
            for _ in range(_TRIES):
                try:
                    connection = self._proven(address, wanted)
                except (XenpluginError, StopIteration, ConnectionResetError):
                    continue  # something answers there, but a bit of its proof or of ours may have been changed
                except (OSError, ValueError):
                    pass
                break
            answers.put((address, connection))

        for place, address in enumerate(addresses):
            threading.Thread(target=attempt, args=(address, place * _STAGGER), daemon=True).start()
        deadline = time.monotonic() + self._timeout + _STAGGER * len(addresses)
        winner: Connection | None = None
        address, left = "", len(addresses)
        while left and winner is None:
            try:
                address, winner = answers.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                break
            left -= 1
        stop.set()
        threading.Thread(target=_close_others, args=(answers, left), daemon=True).start()
        self.address = address if winner is not None else None
        if self.address is None or self.address != self._ahead:
            with self._lock:
                self._ahead, stray, self._promised = self.address or "", self._promised, 0
            threading.Thread(target=self._drop, args=(stray,), daemon=True).start()
        if winner is not None:
            self.rtt = winner.rtt
            assert isinstance(winner.endpoint, SocketEndpoint)
            self.congestion = tcp.congestion_of(winner.endpoint.sock)
        return winner

    def again(self) -> Connection:
        """Open another connection to the address that `first` found. Raises OSError, LinkError."""
        if self.address is None:
            raise LinkError("no address of the far side is known yet")
        connection = self._take() or self._open(self.address)
        self.rtt = min(self.rtt, connection.rtt)
        connection.send(Image(self._factory.size))
        return connection

    def _dial_ahead(self, address: str, count: int) -> None:
        with self._lock:
            if self._ahead is not None:
                return
            self._ahead, self._promised = address, count

        def dial() -> None:
            try:
                self._dialled.put(self._open(address))
            except OSError as exc:
                self._dialled.put(exc)

        for _ in range(count):
            try:
                threading.Thread(target=dial, daemon=True).start()
            except RuntimeError as exc:  # no more threads
                self._dialled.put(OSError(errno.EAGAIN, str(exc)))

    def _take(self) -> Connection | None:
        """Return a connection that was dialled ahead, None if none is left. Raises OSError."""
        with self._lock:
            if not self._promised:
                return None
            self._promised -= 1
        connection = self._dialled.get()
        if isinstance(connection, OSError):
            raise connection
        return connection

    def _drop(self, count: int) -> None:
        for _ in range(count):
            connection = self._dialled.get()
            if isinstance(connection, Connection):
                connection.abandon()

    def _open(self, address: str) -> Connection:
        segment = self._segments[0]
        sock = tcp.connect(address, self.port, self._timeout, segment)
        try:
            sock.settimeout(None)
            rtt, mss = tcp.measure(sock)
            tcp.tune(sock, self._silence, self.wanted, self._unsent)
            overhead = 1 + 52 / max(mss, 500)  # IPv4 and TCP headers with timestamps
            endpoint = SocketEndpoint(sock, self._pacer, overhead)
            endpoint.limit_silence(self._silence, MAX_SEALED)  # what comes here are small frames
            with self._lock:
                number = next(self._numbers)
            connection = self._factory.make(number, endpoint, states.BACKWARD_DATA)
            connection.rtt, connection.segment = rtt, segment
            return connection
        except BaseException:
            sock.close()
            raise

    def _proven(self, address: str, wanted: Callable[[float], int]) -> Connection:
        connection = self._open(address)
        self._dial_ahead(address, wanted(connection.rtt) - 1)
        try:
            connection.send(Image(self._factory.size))
            assert isinstance(connection.endpoint, SocketEndpoint)
            connection.endpoint.sock.settimeout(self._timeout)
            frame = next(connection.receive())
            if not isinstance(frame, Welcome):
                raise LinkError("the first frame is not WELCOME")
            connection.endpoint.sock.settimeout(None)
            connection.heard = True
        except BaseException:
            connection.abandon()
            raise
        return connection


def _close_others(answers: queue.SimpleQueue[tuple[str, Connection | None]], left: int) -> None:
    """Close the `left` connections that come after the winner."""
    for _ in range(left):
        connection = answers.get()[1]
        if connection is not None:
            connection.abandon()
