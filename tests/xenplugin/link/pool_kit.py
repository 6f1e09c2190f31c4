"""A pool of connections against far ends that are made of queues."""

from __future__ import annotations

import queue
import threading

from tests.helpers.reader import read_frames
from xenplugin.codec.seal import Aead, Keys
from xenplugin.errors import XenpluginError
from xenplugin.link.connection import Connection
from xenplugin.link.connector import ConnectionFactory
from xenplugin.link.pool import Pool
from xenplugin.wire import states
from xenplugin.wire.body import Buffer
from xenplugin.wire.frames import Chunk, Codec, Frame, Image, Ping, Sent, Welcome, Zeros
from xenplugin.wire.preamble import Cipher, Preamble
from xenplugin.wire.session import Reader, Writer

KEYS = Keys(bytes(range(32)), bytes(32))
SIZE = 1 << 40
FACTORY = ConnectionFactory(KEYS, bytes(16), Cipher.AES_128_GCM, SIZE)
PATIENT = 60  #: seconds after which a test gives up


def chunk(index: int) -> Chunk:
    return Chunk(index, Codec.STORED, 1, 0, bytes(32), b"payload")


class FarEnd:
    """An endpoint whose other end is the test: it reads the frames and answers."""

    def __init__(self) -> None:
        self.carried = 0
        self.frames: queue.Queue[Frame] = queue.Queue()
        self.broken = False
        self.closed = threading.Event()
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._rest = b""
        self._reader = Reader(states.FORWARD_DATA, accept=self._accept, size=SIZE)

    def _accept(self, preamble: Preamble) -> Aead:
        self.number = preamble.number
        self._writer = Writer(KEYS.backward(preamble))
        return KEYS.forward(preamble)

    # what the pool uses

    def send(self, *parts: Buffer) -> None:
        if self.broken or self.closed.is_set():
            raise ConnectionResetError("reset")
        for part in parts:
            self.carried += len(part)
            for frame in read_frames(self._reader, bytes(part)):
                self.frames.put(frame)

    def receive_into(self, space: memoryview) -> int:
        if not self._rest:
            self._rest = self._answers.get(timeout=PATIENT)
        count = min(len(space), len(self._rest))
        space[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        self.closed.set()
        self._answers.put(b"")

    # what the test does

    def answer(self, *frames: Frame) -> None:
        self._answers.put(b"".join(b"".join(map(bytes, self._writer.pack(frame))) for frame in frames))

    def garble(self) -> None:
        self._answers.put(b"\0\0\0\x20" + bytes(32))

    def hang_up(self) -> None:
        self._answers.put(b"")

    def next(self, count: int) -> list[Frame]:
        """The next `count` frames that are no pings."""
        got: list[Frame] = []
        while len(got) < count:
            frame = self.frames.get(timeout=PATIENT)
            if not isinstance(frame, Ping):
                got.append(frame)
        return got


class World:
    """A pool and what it is connected to."""

    def __init__(self) -> None:
        self.ends: queue.Queue[FarEnd] = queue.Queue()
        self.returned: queue.Queue[list[Sent]] = queue.Queue()
        self.failures: queue.Queue[XenpluginError] = queue.Queue()
        self.notices: queue.Queue[str] = queue.Queue()
        self.refuse = 0  # dials to refuse; negative: all
        self.dials = 0
        self._number = 0
        self._lock = threading.Lock()
        self.pool = Pool(self.dial, self.send_again, self.failures.put, self.notices.put, patience=120)

    def dial(self) -> Connection:
        with self._lock:
            self.dials += 1
            if self.refuse:
                self.refuse -= 1
                raise ConnectionRefusedError("refused")
        return self.connection()

    def send_again(self, frames: list[Sent]) -> None:
        if frames:
            self.returned.put(frames)

    def connection(self, number: int | None = None) -> Connection:
        with self._lock:
            self._number += 1
            number = self._number if number is None else number
        end = FarEnd()
        connection = FACTORY.make(number, end, states.BACKWARD_DATA)
        connection.send(Image(SIZE))
        assert end.frames.get(timeout=PATIENT) == Image(SIZE)
        end.answer(Welcome("{}"))
        self.ends.put(end)
        return connection

    def put(self, *frames: Chunk | Zeros) -> None:
        for frame in frames:
            assert self.pool.queue.put(frame)

    def end(self) -> FarEnd:
        return self.ends.get(timeout=PATIENT)


class Clockwork(threading.Event):
    """An event of the pool that moves a clock instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.pauses: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        if timeout:
            self.pauses.append(timeout)
            self.now += timeout
        return self.is_set()
