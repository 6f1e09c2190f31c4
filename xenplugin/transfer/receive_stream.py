"""The far side of a domain's stream: its bytes in order, and a way to answer.

Threads: those of the session (transfer.acceptor), and the caller, who takes the bytes. Segments are kept as they
came until it is their turn, so that at most WINDOW of them are in memory, packed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from xenplugin.codec.compress import Unpacker
from xenplugin.config import Config
from xenplugin.errors import PeerError, TamperError, XenpluginError, from_code
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.transfer.acceptor import Acceptor, expected
from xenplugin.transfer.connections import AcceptedConnection
from xenplugin.transfer.job import Job
from xenplugin.transfer.reassembly import Reassembly
from xenplugin.wire.frames import MAX_ANSWER, MAX_NOTE, Ack, Answer, Done, End, Error, Frame, Note, Segment


class StreamReceiver:
    """The stream of `job` over `channel`; `random` is what the ready line said. Set `on_note`, which is
    called from another thread, before `open`."""

    def __init__(self, channel: PipeEndpoint, random: bytes, config: Config, job: Job) -> None:
        self.on_note: Callable[[dict[str, Any]], None] = lambda fields: None
        self._session = Acceptor(channel, random, config, job, self._serve)
        self._segments: Reassembly[AcceptedConnection] = Reassembly()
        self._lock = threading.Lock()
        self._digest = hashlib.sha256()

    @property
    def told(self) -> bool:
        """Whether the source knows why it failed."""
        return self._session.told

    def open(self) -> None:
        """Wait for the source to prove itself, and welcome it. Raises XenpluginError."""
        with _expected():
            self._session.open()
            self._session.welcome()

    def read(self) -> Iterator[bytes]:
        """The stream's bytes in order, to its end, verified. A piece counts as handed on when the next is asked
        for. Raises XenpluginError: the session's failure, TamperError if the whole is not what was sent."""
        unpacker = Unpacker()
        while True:
            self._session.wait(lambda: self._segments.ready() is not None or self._segments.ended is not None)
            with self._lock:
                segment = self._segments.ready()
            if segment is None:
                break
            data = bytes(unpacker.unpack(segment.codec, segment.payload, segment.length))
            self._digest.update(data)
            yield data
            with self._lock:
                acks = self._segments.hand_on()
            for line, count in acks:
                _acknowledge(line, count)
        if self._segments.ended != self._digest.digest():
            raise TamperError("the stream that arrived is not the one that was sent")

    def answer(self, data: bytes) -> None:
        """Send bytes backward, in order. Raises XenpluginError."""
        for at in range(0, len(data), MAX_ANSWER):
            self._say(Answer(data[at : at + MAX_ANSWER]))

    def note(self, fields: dict[str, Any]) -> None:
        """Send an object backward. Raises XenpluginError."""
        self._say(Note(note_text(fields)))

    def done(self) -> None:
        """All bytes were handed on and have had their effect: the receipt. Raises XenpluginError."""
        self._say(Done(self._digest.digest()))

    def fail(self, error: XenpluginError) -> None:
        """End the session with `error`, which the source is told."""
        self._session.fail(error)
        self._session.tell(error)

    def close(self) -> None:
        """End what is left of it. More than once does no harm."""
        self._session.close()

    def _say(self, frame: Frame) -> None:
        if self._session.failure is not None:
            raise self._session.failure
        assert self._session.control is not None
        with _expected():
            self._session.control.send(frame)

    def _serve(self, line: AcceptedConnection, frames: Iterator[Frame]) -> None:
        try:
            for frame in frames:
                if isinstance(frame, Segment):
                    with self._lock:
                        count = self._segments.arrive(line, frame)
                    if count is not None:
                        _acknowledge(line, count)
                    self._session.stir()
                elif isinstance(frame, End):
                    with self._lock:
                        self._segments.finish(frame)
                    self._session.stir()
                elif isinstance(frame, Note):
                    self.on_note(note_fields(frame.text))
                elif isinstance(frame, Error):
                    raise from_code(frame.code, frame.text)
        finally:
            with self._lock:
                self._segments.forget(line)


def note_text(fields: dict[str, Any]) -> str:
    """The text of a NOTE. Raises ValueError if it is too long."""
    text = json.dumps(fields)
    if len(text) > MAX_NOTE:
        raise ValueError(f"a note of {len(text)} bytes")
    return text


def note_fields(text: str) -> dict[str, Any]:
    """The object in a NOTE. Raises PeerError."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise PeerError("a note that cannot be read")
    return fields


def _acknowledge(line: AcceptedConnection, count: int) -> None:
    with contextlib.suppress(OSError):  # its reader notices as well
        line.send(Ack(count))


@contextlib.contextmanager
def _expected() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise expected(exc) from None
