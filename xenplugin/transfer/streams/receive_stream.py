"""Receives a domain's stream: its bytes in order, with answers and notes in the other direction.

Threads: those of the session (transfer.sessions.destination_session), and the caller, who reads the bytes. Segments
stay compressed until it is their turn, so that at most WINDOW of them are in memory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from xenplugin.codec.compress import Unpacker
from xenplugin.config import Config
from xenplugin.errors import PeerError, RefusedError, TamperError, XenpluginError, from_code
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.transfer.sessions.connections import AcceptedConnection
from xenplugin.transfer.sessions.destination_session import DestinationSession
from xenplugin.transfer.sessions.job import Job
from xenplugin.transfer.sessions.session import expected
from xenplugin.transfer.streams.reassembly import Reassembly
from xenplugin.wire.frames import MAX_ANSWER, MAX_NOTE, Ack, Answer, Done, End, Error, Frame, Note, Segment


class StreamReceiver:
    """Receives the stream of `job` over `channel`; `random` is the one that the ready line gave. Set `on_note`,
    which is called from another thread, before `open`. Methods raise the session's failure as XenpluginError."""

    def __init__(self, channel: PipeEndpoint, random: bytes, config: Config, job: Job) -> None:
        self.on_note: Callable[[dict[str, Any]], None] = lambda fields: None
        self._accept = partial(DestinationSession.accept, channel, random, config, job)
        self._session: DestinationSession | None = None
        self._segments: Reassembly[AcceptedConnection] = Reassembly()
        self._lock = threading.Lock()
        self._digest = hashlib.sha256()

    @property
    def reported(self) -> bool:
        """Whether the source knows why the session failed."""
        return self._session is not None and self._session.reported

    def open(self) -> None:
        """Wait until the source has proved itself, and welcome it."""
        with _expected():
            self._session = self._accept()
            self._session.serve(self._receive)

    def read(self) -> Iterator[bytes]:
        """Yield the stream's bytes in order, to its end. A piece counts as handed on when the next is asked for.
        Raises TamperError if the whole is not what was sent."""
        assert self._session is not None
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
            for connection, count in acks:
                _acknowledge(connection, count)
        if self._segments.ended != self._digest.digest():
            raise TamperError("the stream that arrived is not the one that was sent")

    def answer(self, data: bytes) -> None:
        """Send bytes to the source, in order."""
        for at in range(0, len(data), MAX_ANSWER):
            self._send(Answer(data[at : at + MAX_ANSWER]))

    def note(self, fields: dict[str, Any]) -> None:
        """Send an object to the source."""
        self._send(Note(note_text(fields)))

    def done(self) -> None:
        """Send the receipt, after all bytes were handed on and have had their effect."""
        self._send(Done(self._digest.digest()))

    def fail(self, error: XenpluginError) -> None:
        """End the session with `error`, and report it to the source."""
        if self._session is not None:
            self._session.fail(error)
            self._session.report(error)

    def close(self) -> None:
        """End the session. More than once does no harm."""
        if self._session is not None:
            self._session.close()

    def _send(self, frame: Frame) -> None:
        assert self._session is not None
        self._session.check()
        with _expected():
            self._session.control.send(frame)

    def _receive(self, connection: AcceptedConnection, frames: Iterator[Frame]) -> None:
        assert self._session is not None
        try:
            for frame in frames:
                if isinstance(frame, Segment):
                    with self._lock:
                        count = self._segments.add(connection, frame)
                    if count is not None:
                        _acknowledge(connection, count)
                    self._session.notify()
                elif isinstance(frame, End):
                    with self._lock:
                        self._segments.finish(frame)
                    self._session.notify()
                elif isinstance(frame, Note):
                    self.on_note(note_fields(frame.text))
                elif isinstance(frame, Error):
                    raise from_code(frame.code, frame.text)
        finally:
            with self._lock:
                self._segments.forget(connection)


def note_text(fields: dict[str, Any]) -> str:
    """Return the text of a NOTE. Raises RefusedError if it is too long."""
    text = json.dumps(fields, separators=(",", ":"))
    if len(text) > MAX_NOTE:
        raise RefusedError(
            f"what the other host must know of the guest's disks takes {len(text)} bytes, {MAX_NOTE} are allowed",
            hint="give the disks shorter paths",
        )
    return text


def note_fields(text: str) -> dict[str, Any]:
    """Return the object in a NOTE. Raises PeerError."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise PeerError("a note cannot be read")
    return fields


def _acknowledge(connection: AcceptedConnection, count: int) -> None:
    with contextlib.suppress(OSError):  # its reader notices as well
        connection.send(Ack(count))


@contextlib.contextmanager
def _expected() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise expected(exc) from None
