"""Answers what this host has of some images already, and how fast bytes arrive: nothing is written, created or
locked.

The source asks for chunks by NOTE, and gets their leaves in ANSWERs, in the order it asked. SEGMENTs measure the
path: they are dropped, and acknowledged at once. Threads: those of the session
(transfer.sessions.destination_session), and the caller, who reads and hashes."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from xenplugin.config import Config
from xenplugin.errors import PeerError, from_code
from xenplugin.image.formats.kinds import Format
from xenplugin.image.home import at_home
from xenplugin.image.scan import ZEROS
from xenplugin.image.target.present import PresentContent
from xenplugin.image.target.room import check_room
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.transfer.disks.kept_backing import kept_backing
from xenplugin.transfer.measuring.host_load import HostLoad, LoadWatch
from xenplugin.transfer.measuring.measurement_messages import (
    MOST_NOISE,
    MOST_QUESTIONS,
    About,
    Question,
    pack_answer,
)
from xenplugin.transfer.sessions.connections import AcceptedConnection
from xenplugin.transfer.sessions.destination_session import DestinationSession
from xenplugin.transfer.sessions.job import Job, MeasuredImage
from xenplugin.transfer.sessions.session import expected
from xenplugin.transfer.streams.receive_stream import note_fields, note_text
from xenplugin.wire.frames import Ack, Answer, Codec, Done, End, Error, Frame, Note, Segment

#: Times that a chunk is hashed to see how fast this host does it.
_HASHED = 4


class MeasurementReceiver:
    """The far side of the measurement that `job` asks for over `channel`; `random` is the one that the ready line
    gave. `run()` once."""

    def __init__(self, channel: PipeEndpoint, random: bytes, config: Config, job: Job) -> None:
        self._channel = channel
        self._random = random
        self._config = config
        self._job = job
        self._session: DestinationSession | None = None
        self._questions: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._noise = 0
        self._lock = threading.Lock()
        self.reported = False  #: the source knows why it failed

    def run(self) -> None:
        """Answer until the source ends the session. Raises XenpluginError, after it was reported to the source."""
        watch = LoadWatch()
        try:
            session = DestinationSession.accept(self._channel, self._random, self._config, self._job)
        except BaseException as exc:
            raise expected(exc) from None
        self._session = session
        try:
            with ExitStack() as stack:
                images = [stack.enter_context(self._open(image)) for image in self._job.images]
                session.serve(self._receive)
                session.control.send(Note(note_text(_about(images, watch.result()).fields)))
                self._answer_all(session, images)
            session.over.set()
            session.control.send(Done(bytes(32)))
        except BaseException as exc:
            error = expected(exc)
            session.report(error)
            raise error from None
        finally:
            self.reported = session.reported
            session.close()

    def _open(self, image: MeasuredImage) -> PresentContent:
        path = self._config.mapped(image.path) if image.live else at_home(image.path)
        format = self._config.stored(Format.of_json(image.format))
        backing, _ = kept_backing(image.backing, format, path, self._config)
        if not backing:
            check_room(path, image.data)
        return PresentContent(path, image.size, self._config.state_dir, format, backing)

    def _answer_all(self, session: DestinationSession, images: list[PresentContent]) -> None:
        """Answer questions to the end of the measurement. Raises XenpluginError, OSError."""
        while True:
            session.wait(lambda: not self._questions.empty())
            question = self._questions.get()
            if question is None:
                return
            began = time.thread_time()
            items = [images[question.number].describe(index) for index in question.chunks]
            spent = round(1e6 * (time.thread_time() - began))
            session.control.send(Answer(pack_answer(spent, items, self._job.images[question.number].size)))

    def _receive(self, connection: AcceptedConnection, frames: Iterator[Frame]) -> None:
        """Handle a connection's frames to its end. Raises OSError, XenpluginError."""
        came = 0
        for frame in frames:
            if isinstance(frame, Segment):
                self._take(frame)
                came += 1
                connection.send(Ack(came))
            elif isinstance(frame, Note):
                self._ask(Question.of(note_fields(frame.text), self._job.images))
            elif isinstance(frame, End):
                self._ask(None)
            elif isinstance(frame, Error):
                raise from_code(frame.code, frame.text)

    def _take(self, segment: Segment) -> None:
        """Drop a segment. Raises PeerError for one that is packed, or one too many."""
        if segment.codec is not Codec.STORED:
            raise PeerError("the source sent a packed segment in a measurement")
        with self._lock:
            self._noise += segment.length
            if self._noise > MOST_NOISE:
                raise PeerError("the source sends more than a measurement may")

    def _ask(self, question: Question | None) -> None:
        assert self._session is not None
        if self._questions.qsize() >= MOST_QUESTIONS:
            raise PeerError("the source asks more than it waits for")
        self._questions.put(question)
        self._session.notify()


def _about(images: list[PresentContent], load: HostLoad) -> About:
    began = time.thread_time()
    for _ in range(_HASHED):
        hashlib.sha256(ZEROS).digest()
    spent = max(time.thread_time() - began, 1e-6) / _HASHED
    hidden = tuple(number for number, image in enumerate(images) if image.hidden)
    return About(boot_id(), spent, load, hidden)


def boot_id() -> str:
    """Return the name of the running kernel: equal on both sides if they share its cores."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
