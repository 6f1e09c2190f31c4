"""Who may come into a session."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

from xenplugin.codec.seal import Keys
from xenplugin.transfer.connections import AcceptedConnection, Connections
from xenplugin.transfer.job import Job
from xenplugin.wire import states
from xenplugin.wire.frames import Frame, Image
from xenplugin.wire.preamble import Carrier, Preamble
from xenplugin.wire.session import Writer


def take(_connection: AcceptedConnection, frames: Iterator[Frame]) -> None:
    assert list(frames) == []


def come(lines: Connections, *data: bytes) -> bool:
    """Whether who sends `data` becomes known."""
    known = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as near:
        far, _ = door.accept()
        near.sendall(b"".join(data))
        near.shutdown(socket.SHUT_WR)
        lines.serve(take, lambda error: None, far, known.set)
    return known.is_set()


def test_a_connection_that_fails_to_authenticate_takes_no_number() -> None:
    """He has seen a session's name on the path, and calls himself what its next connection will be called."""
    job = Job.fresh(None, local=False, size=1 << 20)
    random = os.urandom(32)

    lines = Connections(job, Keys(job.secret, random), states.FORWARD_DATA, 30.0)
    preamble = Preamble(job.cipher, Carrier.CONNECTION, 1, job.session, os.urandom(32))
    frame = b"".join(map(bytes, Writer(Keys(job.secret, random).forward(preamble)).pack(Image(job.size))))
    for _ in range(3):
        assert not come(lines, replace(preamble, random=os.urandom(32)).pack(), os.urandom(len(frame)))
    assert come(lines, preamble.pack(), frame)
    assert not come(lines, preamble.pack(), frame), "the same number twice"
