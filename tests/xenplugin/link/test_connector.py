"""The address that proves itself is dialled: against listeners on several addresses."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from xenplugin.codec.seal import Keys
from xenplugin.errors import LinkError
from xenplugin.link import connector as dial_module
from xenplugin.link.connector import ConnectionFactory, Connector
from xenplugin.link.endpoint import SocketEndpoint
from xenplugin.wire.frames import Error, Frame, Welcome
from xenplugin.wire.preamble import Cipher, Preamble
from xenplugin.wire.session import Writer

KEYS = Keys(bytes(range(32)), bytes(32))
FACTORY = ConnectionFactory(KEYS, bytes(16), Cipher.AES_128_GCM, 1 << 40)
PATIENT = 60  #: seconds after which a test gives up

#: A thread that dies of an error nobody foresaw would leave others waiting.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


class Addresses:
    """Listeners on one port of several loopback addresses."""

    def __init__(self) -> None:
        self.port = 0
        self.right = threading.Event()
        self._socks: list[socket.socket] = []
        self.seen: queue.Queue[Preamble] = queue.Queue()

    def serve(self, address: str, handle: Callable[[socket.socket], None]) -> str:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, self.port))
        self.port = sock.getsockname()[1]
        sock.listen()
        self._socks.append(sock)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = sock.accept()
                    self._socks.append(connection)
                    threading.Thread(target=self._handle, args=(handle, connection), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return address

    @staticmethod
    def _handle(handle: Callable[[socket.socket], None], connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            handle(connection)

    def acceptor(self, keys: Keys, first: Frame | None = None) -> Callable[[socket.socket], None]:
        """What answers a WELCOME (or `first`) sealed with `keys`."""

        def handle(connection: socket.socket) -> None:
            head = connection.recv(64, socket.MSG_WAITALL)
            preamble = Preamble.unpack(head)
            connection.recv(29, socket.MSG_WAITALL)
            self.seen.put(preamble)
            connection.sendall(b"".join(map(bytes, Writer(keys.backward(preamble)).pack(first or Welcome("{}")))))

        return handle

    def close(self) -> None:
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def silent(connection: socket.socket) -> None:
    pass


def garbage(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)


def echo(connection: socket.socket) -> None:
    while data := connection.recv(4096):
        connection.sendall(data)


def hang_up(connection: socket.socket) -> None:
    connection.close()


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> Iterator[Addresses]:
    monkeypatch.setattr(dial_module, "_STAGGER", 0.0)
    made = Addresses()
    yield made
    made.close()


def dialer(addresses: Addresses, timeout: float = PATIENT) -> Connector:
    made = Connector(FACTORY, timeout=timeout, silence=30)
    made.port = addresses.port
    return made


def alone(rtt: float) -> int:
    return 1


def test_the_address_that_authenticates_first_wins(addresses: Addresses) -> None:
    right = addresses.serve("127.0.0.9", addresses.acceptor(KEYS))
    impostor = Keys(bytes(32), bytes(32))
    others = [
        addresses.serve("127.0.0.2", silent),
        addresses.serve("127.0.0.3", garbage),
        "127.0.0.4",  # closed
        addresses.serve("127.0.0.5", echo),
        addresses.serve("127.0.0.6", hang_up),
        addresses.serve("127.0.0.7", addresses.acceptor(impostor)),
        addresses.serve("127.0.0.8", addresses.acceptor(KEYS, Error(15, "in use"))),
        "no such address",
        "x" * 300,
    ]
    made = dialer(addresses)
    line = made.first([*others, right], alone)
    assert line is not None and made.address == right
    assert isinstance(line.endpoint, SocketEndpoint)
    assert line.endpoint.sock.getpeername()[0] == right
    assert line.endpoint.sock.gettimeout() is None
    again = made.again()
    assert isinstance(again.endpoint, SocketEndpoint)
    assert again.number != line.number and again.endpoint.sock.getpeername()[0] == right
    assert made.congestion and made.rtt > 0
    for each in (line, again):
        each.abandon()


def test_each_connection_has_a_number_and_randomness_of_its_own(addresses: Addresses) -> None:
    right = addresses.serve("127.0.0.1", addresses.acceptor(KEYS))
    made = dialer(addresses)
    lines = [made.first([right], alone), made.again(), made.again()]
    seen = [addresses.seen.get(timeout=PATIENT) for _ in lines]
    assert len({preamble.number for preamble in seen}) == len({preamble.random for preamble in seen}) == 3
    assert all(preamble.number > 0 and preamble.session == bytes(16) for preamble in seen)
    for line in lines:
        assert line is not None
        line.abandon()


def test_without_an_authentic_address_there_is_no_connection(addresses: Addresses) -> None:
    wrong = [
        addresses.serve("127.0.0.3", garbage),
        addresses.serve("127.0.0.6", hang_up),
        addresses.serve("127.0.0.7", addresses.acceptor(Keys(bytes(32), bytes(32)))),
        "127.0.0.4",
    ]
    made = dialer(addresses)
    assert made.first(wrong, alone) is None and made.address is None
    assert made.first([], alone) is None
    with pytest.raises(LinkError):
        made.again()


def test_a_silent_peer_is_waited_for_only_as_long_as_agreed(addresses: Addresses) -> None:
    made = dialer(addresses, timeout=0.1)
    assert made.first([addresses.serve("127.0.0.2", silent)], alone) is None


def test_the_slower_addresses_are_disconnected(addresses: Addresses) -> None:
    gone: queue.Queue[bytes] = queue.Queue()
    go = threading.Event()

    def late(connection: socket.socket) -> None:
        go.wait(PATIENT)
        addresses.acceptor(KEYS)(connection)
        gone.put(connection.recv(1))

    slow = addresses.serve("127.0.0.2", late)
    right = addresses.serve("127.0.0.9", addresses.acceptor(KEYS))

    def liar(connection: socket.socket) -> None:
        addresses.acceptor(Keys(bytes(32), bytes(32)))(connection)
        gone.put(connection.recv(1))

    line = dialer(addresses).first([slow, addresses.serve("127.0.0.3", liar), right], alone)
    assert line is not None
    assert gone.get(timeout=PATIENT) == b""
    go.set()
    assert gone.get(timeout=PATIENT) == b""
    line.abandon()


def test_others_are_dialled_while_the_first_authenticates(addresses: Addresses) -> None:
    waiting = threading.Semaphore(0)
    there = threading.Event()

    def patient(connection: socket.socket) -> None:
        waiting.release()
        there.wait(PATIENT)
        addresses.acceptor(KEYS)(connection)

    def count() -> None:
        for _ in range(3):
            waiting.acquire()
        there.set()

    threading.Thread(target=count, daemon=True).start()
    right = addresses.serve("127.0.0.2", patient)
    made = dialer(addresses)
    line = made.first([right], lambda rtt: 3)
    assert line is not None and there.is_set()
    lines = [line, made.again(), made.again(), made.again()]
    assert sorted(each.number for each in lines) == [1, 2, 3, 4]
    for each in lines:
        each.abandon()


def test_connections_to_an_unauthenticated_address_are_closed(addresses: Addresses) -> None:
    gone: queue.Queue[bytes] = queue.Queue()
    dialled = threading.Semaphore(0)
    go = threading.Event()

    def stranger(connection: socket.socket) -> None:
        dialled.release()
        gone.put(connection.recv(1))

    def right(connection: socket.socket) -> None:
        for _ in range(3):
            dialled.acquire()
        addresses.acceptor(KEYS)(connection)
        go.wait(PATIENT)

    def wanted(rtt: float) -> int:
        return 3

    near, far = addresses.serve("127.0.0.2", stranger), addresses.serve("127.0.0.9", right)
    made = dialer(addresses)
    made._dial_ahead(near, wanted(0.0))  # as its first connection does, before the other's
    line = made.first([far], wanted)
    assert line is not None and made.address == "127.0.0.9"
    assert [gone.get(timeout=PATIENT) for _ in range(3)] == [b""] * 3
    go.set()
    line.abandon()
