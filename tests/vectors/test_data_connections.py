"""The vectors of data connections, taken by the real acceptor and the real pool of the initiator."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helpers.reader import read_frames
from tests.vectors.reading import TABLES, VECTORS, compact, each, keys_of
from xenplugin.codec.seal import SECRET_BYTES, cipher_named
from xenplugin.errors import XenpluginError
from xenplugin.link.connection import Connection
from xenplugin.link.endpoint import SocketEndpoint
from xenplugin.link.pool import Pool
from xenplugin.transfer.sessions.connections import HEAD, AcceptedConnection, Connections
from xenplugin.transfer.sessions.job import Job
from xenplugin.wire import states
from xenplugin.wire.frames import Error, Frame, Welcome, Zeros
from xenplugin.wire.preamble import Preamble
from xenplugin.wire.session import Reader, Writer

DAMAGED = [vector for vector in VECTORS if vector["outcome"] == "connection lost"]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as near:
        far, _ = door.accept()
        with far:
            yield near, far


@each(vector for vector in DAMAGED if vector["direction"] == "forward")
def test_the_acceptor_drops_the_connection_only_and_says_why(
    vector: dict[str, Any], pair: tuple[socket.socket, socket.socket]
) -> None:
    asked = vector["job"]
    job = Job(
        bytes(SECRET_BYTES),
        bytes.fromhex(asked["session"]),
        cipher_named(asked["cipher"]),
        True,
        size=asked["size"],
    )
    table = TABLES["domain data" if asked["kind"] == "domain" else "data", "forward"]
    lines = Connections(job, keys_of(vector), table, 30.0)
    got: list[Frame] = []
    failures: list[BaseException] = []

    def take(_connection: AcceptedConnection, frames: Iterator[Frame]) -> None:
        got.extend(frames)

    near, far = pair
    stream = base64.b64decode(vector["stream"])
    serve = lines.prove(take, failures.append, stream[:HEAD])
    assert serve is not None
    serving = threading.Thread(target=serve, args=(far,))
    serving.start()
    near.sendall(stream[HEAD:])
    near.settimeout(60)
    heard = b""
    while piece := near.recv(65536):
        heard += piece
    near.close()
    serving.join(60)
    assert not serving.is_alive() and not failures
    assert [compact(frame) for frame in got] == vector["events"][1:]  # the first has proved the initiator
    opener = keys_of(vector).backward(Preamble.unpack(stream[:64]))
    answers = list(read_frames(Reader(states.BACKWARD_DATA, opener=opener, size=asked["size"]), heard))
    assert answers == [Welcome("{}"), Error(12, "a damaged record")]
    assert lines.alive() == []


@each(vector for vector in DAMAGED if vector["direction"] == "backward")
def test_the_initiator_opens_another_connection(
    vector: dict[str, Any], pair: tuple[socket.socket, socket.socket]
) -> None:
    near, far = pair
    preamble = Preamble.unpack(bytes.fromhex(vector["preamble"]))
    reader = Reader(states.BACKWARD_DATA, opener=keys_of(vector).backward(preamble), size=vector["job"]["size"])
    connection = Connection(1, SocketEndpoint(near), Writer(keys_of(vector).forward(preamble)), reader, b"")
    dialled = threading.Event()
    failures: list[XenpluginError] = []
    notices: list[str] = []

    def dial() -> Connection:
        dialled.set()
        raise ConnectionRefusedError

    for _ in range(3):
        connection.send(Zeros(0, 1))
    pool = Pool(dial, lambda frames: None, failures.append, notices.append, patience=60)
    pool.add(connection)
    far.sendall(base64.b64decode(vector["stream"]))
    assert dialled.wait(60)
    pool.close()
    assert not failures and len(notices) == 1 and "damaged record; opening another" in notices[0]
