"""A TCP connection as an endpoint: what silence is, and how it is closed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from xenplugin.link import endpoint as endpoint_module
from xenplugin.link.endpoint import SocketEndpoint


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as near:
        far, _ = door.accept()
        with far:
            yield near, far


def test_silence_and_a_record_that_does_not_end(pair: tuple[socket.socket, socket.socket]) -> None:
    """A length that was changed to a larger one would wait for ever: only pings come, and fill the record."""
    near, far = pair
    here = SocketEndpoint(far)
    here.limit_silence(1, 1000)
    space = memoryview(bytearray(100_000))
    near.sendall(bytes(500))
    with pytest.raises(ConnectionError, match="does not end"):
        here.receive_into(space)
    with pytest.raises(BlockingIOError):
        here.receive_into(space)
    near.sendall(bytes(1000))
    assert here.receive_into(space) == 1000, "slow, but not too slow"
    near.sendall(bytes(30))
    near.close()
    assert (here.receive_into(space), here.receive_into(space)) == (30, 0), "the end is no silence"


def test_what_was_sent_last_arrives_though_more_is_on_its_way_here(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    near, far = pair
    here = SocketEndpoint(far)
    near.sendall(bytes(200_000))
    here.send(b"last words")

    def end() -> None:
        here.drain()
        here.close()

    ending = threading.Thread(target=end)
    ending.start()
    near.settimeout(60)
    assert near.recv(100) == b"last words" and near.recv(100) == b""
    near.sendall(bytes(200_000))
    near.shutdown(socket.SHUT_WR)
    ending.join(60)
    assert not ending.is_alive()


def test_an_end_that_is_not_answered_is_not_awaited_for_ever(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "_DRAIN_SECONDS", 0.05)
    SocketEndpoint(pair[1]).drain()
