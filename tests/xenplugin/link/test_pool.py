"""Connections that are lost and healed: against far ends made of queues."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator

import pytest

from tests.helpers.reader import read_frames
from xenplugin.codec.seal import Keys
from xenplugin.errors import ImageError, LinkError, PeerError, TamperError, XenpluginError
from xenplugin.link import pool as pool_module
from xenplugin.link.connection import Connection
from xenplugin.link.connector import ConnectionFactory
from xenplugin.link.pool import Pool
from xenplugin.wire import states
from xenplugin.wire.body import Buffer
from xenplugin.wire.frames import Ack, Chunk, Codec, Done, Error, Frame, Image, Index, Ping, Welcome, Zeros
from xenplugin.wire.preamble import Cipher, Preamble
from xenplugin.wire.session import MAX_FRAMES_PER_KEY, Reader, Writer

KEYS = Keys(bytes(range(32)), bytes(32))
SIZE = 1 << 40
FACTORY = ConnectionFactory(KEYS, bytes(16), Cipher.AES_128_GCM, SIZE)
PATIENT = 60  #: seconds after which a test gives up

#: A thread that dies of an error nobody foresaw would leave others waiting.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


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

    def _accept(self, preamble: Preamble) -> object:
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
        self.returned: queue.Queue[list[Chunk | Zeros]] = queue.Queue()
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

    def send_again(self, frames: list[Chunk | Zeros]) -> None:
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


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.pool.close()


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


@pytest.fixture
def clockwork(world: World, monkeypatch: pytest.MonkeyPatch) -> Clockwork:
    made = Clockwork()
    monkeypatch.setattr(pool_module, "time", type("time", (), {"monotonic": lambda: made.now}))
    world.pool._closed = made
    world.pool._alive_at = made.now
    return made


def test_a_lost_connection_gives_back_what_was_not_acknowledged(world: World) -> None:
    world.pool.add(world.connection())
    frames: list[Chunk | Zeros] = [chunk(0), Zeros(1, 5), chunk(6), chunk(7), Zeros(8, 1)]
    first = world.end()
    world.put(*frames)
    assert first.next(5) == frames
    first.answer(Ack(1), Ping(), Ack(2))
    first.hang_up()
    lost = world.returned.get(timeout=PATIENT)
    assert [frame.index if isinstance(frame, Chunk) else frame for frame in lost] == [6, 7, Zeros(8, 1)]
    second = world.end()
    world.put(chunk(6))
    assert second.next(1) == [chunk(6)] and second.number != first.number
    assert first.closed.is_set() and "closed by the far side" in world.notices.get(timeout=PATIENT)
    assert world.failures.empty() and world.pool.size == 1
    assert world.pool.bytes_wire >= first.carried


def test_a_frame_that_broke_half_way_is_given_back(world: World) -> None:
    connection = world.connection()
    end = world.end()
    end.broken = True
    world.pool.add(connection)
    world.put(chunk(3))
    assert [frame.index for frame in world.returned.get(timeout=PATIENT) if isinstance(frame, Chunk)] == [3]
    world.put(chunk(3))
    assert world.end().next(1) == [chunk(3)]


def test_other_connections_go_on(world: World) -> None:
    for _ in range(3):
        world.pool.add(world.connection())
    ends = [world.end() for _ in range(3)]
    world.refuse = -1
    ends[1].hang_up()
    assert ends[1].closed.wait(PATIENT)
    world.put(*map(chunk, range(40)))
    got: set[int] = set()
    while len(got) < 40:
        for end in (ends[0], ends[2]):
            with contextlib.suppress(queue.Empty):
                frame = end.frames.get(timeout=0.01)
                if isinstance(frame, Chunk):
                    got.add(frame.index)
    assert got == set(range(40)) and world.failures.empty()


def test_opened_connections_share_the_queue(world: World) -> None:
    world.pool.open(3)
    ends = [world.end() for _ in range(3)]
    assert len({end.number for end in ends}) == 3
    world.put(*map(chunk, range(3)))
    while world.pool.size < 3:
        pass
    world.pool.close()
    assert all(end.closed.wait(PATIENT) for end in ends)
    assert not world.pool.queue.put(chunk(4))


def test_connections_that_are_not_used_stay_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_IDLE_SECONDS", 0.01)
    for _ in range(3):
        world.pool.add(world.connection())
    ends = [world.end() for _ in range(3)]
    world.pool.use_few(1, "reno")
    for end in ends[1:]:
        assert end.frames.get(timeout=PATIENT) == Ping()
    world.put(*map(chunk, range(20)))
    assert ends[0].next(20) == [chunk(index) for index in range(20)]
    assert all(isinstance(end.frames.get(timeout=PATIENT), Ping) for end in ends[1:] for _ in range(5))


def whoever_gets_it(ends: list[FarEnd], patient: float) -> Frame:
    """The next frame that is no ping, at any of `ends`."""
    until = time.monotonic() + patient
    while time.monotonic() < until:
        for end in ends:
            with contextlib.suppress(queue.Empty):
                if not isinstance(frame := end.frames.get(timeout=0.01), Ping):
                    return frame
    raise AssertionError("nobody got it")


def test_what_a_lost_connection_leaves_does_not_wait_for_the_unused(world: World) -> None:
    """Nobody else might be reached any more."""
    for _ in range(3):
        world.pool.add(world.connection())
    ends = [world.end() for _ in range(3)]
    world.pool.use_few(1, "reno")
    world.refuse = -1
    ends[0].hang_up()
    assert "was lost" in world.notices.get(timeout=PATIENT)
    world.put(chunk(0))
    assert whoever_gets_it(ends[1:], PATIENT) == chunk(0)


def test_when_all_are_used_again_they_are_given_their_share_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_IDLE_SECONDS", PATIENT)
    for _ in range(2):
        world.pool.add(world.connection())
    ends = [world.end() for _ in range(2)]
    world.pool.use_few(0, "reno")
    for end in ends:
        assert end.frames.get(timeout=PATIENT) == Ping()
    world.pool.use_all()
    world.put(chunk(0))
    assert whoever_gets_it(ends, PATIENT / 2) == chunk(0)


def test_it_dials_again_with_growing_pauses_and_fails_once(world: World, clockwork: Clockwork) -> None:
    world.refuse = -1
    assert world.pool._redial() is None
    error = world.failures.get(timeout=PATIENT)
    assert isinstance(error, LinkError) and "refused" in error.message and "120 s" in error.message
    assert clockwork.pauses[:6] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2] and set(clockwork.pauses[6:]) == {5.0}
    assert 120 < sum(clockwork.pauses) <= 125.1
    for _ in range(3):  # others of its connections see the same end
        assert world.pool._redial() is None
    assert world.failures.empty()


def test_a_link_that_comes_back_in_time_is_used(world: World, clockwork: Clockwork) -> None:
    world.refuse = 25
    assert world.pool._redial() is not None
    assert sum(clockwork.pauses) > 90 and world.failures.empty()


def test_patience_is_without_end_while_another_connection_lives(world: World, clockwork: Clockwork) -> None:
    other = world.connection()
    world.pool._register(other, reads=False)
    other.heard = True
    clockwork.now += 10_000  # a long transfer so far
    world.refuse = 200
    assert world.pool._redial() is not None
    assert world.failures.empty()
    assert sum(clockwork.pauses) > 900
    world.pool._remove(other)
    world.refuse = -1
    before = clockwork.now
    assert world.pool._redial() is None
    assert clockwork.now - before > 120 and isinstance(world.failures.get(timeout=PATIENT), LinkError)


def test_a_connection_that_never_says_anything_is_not_alive(world: World, clockwork: Clockwork) -> None:
    world.pool._register(world.connection(), reads=False)  # a box on the way took it
    world.refuse = -1
    assert world.pool._redial() is None
    assert isinstance(world.failures.get(timeout=PATIENT), LinkError)


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([Ack(5)], PeerError),
        ([Error(13, "disk full")], ImageError),
        ([Error(12, "changed")], TamperError),
        (None, TamperError),
        ([Index(0, ((0xFFFF, b""),))], PeerError),
        ([Done(bytes(32))], PeerError),
        ([Welcome("{}")], PeerError),
    ],
)
def test_what_the_far_side_does_wrong_ends_the_session(
    world: World, answers: list[Frame] | None, kind: type[XenpluginError]
) -> None:
    world.pool.add(world.connection())
    end = world.end()
    world.put(chunk(0))
    end.next(1)
    if answers is None:
        end.garble()
    else:
        end.answer(*answers)
    error = world.failures.get(timeout=PATIENT)
    assert type(error) is kind
    assert error.remote == bool(answers and isinstance(answers[0], Error))


def test_a_spent_key_gives_way_to_another(world: World) -> None:
    connection = world.connection()
    connection._writer.counter = MAX_FRAMES_PER_KEY - 1024
    world.pool.add(connection)
    world.end()
    world.put(chunk(0))
    second = world.end()
    assert second.next(1) == [chunk(0)] and second.number == 2


def test_the_control_channel_is_neither_read_nor_dialled_again(world: World) -> None:
    connection = world.connection(0)
    end = world.end()
    end.hang_up()  # nobody of the pool reads it
    world.pool.add_control(connection)
    world.put(chunk(0), chunk(1))
    assert end.next(2) == [chunk(0), chunk(1)]
    end.broken = True
    world.put(chunk(2))
    assert [frame.index for frame in world.returned.get(timeout=PATIENT) if isinstance(frame, Chunk)] == [0, 1, 2]
    assert world.dials == 0 and world.failures.empty()


def test_a_quiet_connection_is_pinged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "PING_EVERY", 0.001)
    world.pool.add(world.connection())
    assert world.end().frames.get(timeout=PATIENT) == Ping()


def test_nothing_heard_for_long_is_a_loss(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(self: FarEnd, space: memoryview) -> int:
        raise BlockingIOError

    connection = world.connection()
    world.end()
    with monkeypatch.context() as patch:
        patch.setattr(FarEnd, "receive_into", silent)
        world.pool._read(connection)
    assert "nothing was received" in str(connection.lost)


def test_time_of_these_tests_is_real() -> None:
    assert pool_module.time is time
