"""The vectors of backward streams, handled as the sender handles each frame."""

from __future__ import annotations

import base64
from typing import Any

from tests.helpers.reader import read_frames
from tests.vectors.reading import VECTORS, each, keys_of, outcome, reader_of
from xenplugin.errors import XenpluginError
from xenplugin.link.connection import Connection
from xenplugin.link.damage import Damaged
from xenplugin.link.pool import handle
from xenplugin.transfer.chunks.remote_index import RemoteIndex
from xenplugin.transfer.sessions.welcome import WelcomeFields
from xenplugin.wire import frames
from xenplugin.wire.body import Buffer
from xenplugin.wire.preamble import Preamble
from xenplugin.wire.session import Writer


class Nowhere:
    """An endpoint that drops what is sent."""

    carried = 0

    def receive_into(self, space: memoryview) -> int:
        raise NotImplementedError

    def send(self, *parts: Buffer) -> None:
        pass

    def close(self) -> None:
        pass


@each(v for v in VECTORS if v["direction"] == "backward" and v["error"] is None and v["job"]["kind"] == "image")
def test_the_sender_accepts_or_refuses_well_formed_answers(vector: dict[str, Any]) -> None:
    size = vector["job"]["size"]
    preamble = Preamble.unpack(bytes.fromhex(vector["preamble"]))
    reader = reader_of(vector)
    connection = Connection(vector["number"], Nowhere(), Writer(keys_of(vector).forward(preamble)), reader, b"")
    for _ in range(3):
        connection.send(frames.Zeros(0, 1))
    base = RemoteIndex(size)
    ended: object = None
    try:
        for frame in read_frames(reader, base64.b64decode(vector["stream"])):
            if isinstance(frame, frames.Welcome):
                WelcomeFields.parse(frame.text)
            elif isinstance(frame, frames.Index | frames.IndexRun):
                base.add(frame)
            elif not isinstance(frame, frames.Done):
                handle(connection, frame)
    except XenpluginError as exc:
        ended = outcome(exc)
    except Damaged:
        ended = "connection lost"
    assert ended == vector["outcome"]
