"""What bounds and paces the sending: the queue, the pacer, and the book a connection keeps."""

from __future__ import annotations

import threading
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from xenplugin.codec.seal import Keys
from xenplugin.link import tcp
from xenplugin.link.connection import Connection
from xenplugin.link.queue import SendQueue, cost
from xenplugin.link.rate import BURST, SLICE, Pacer
from xenplugin.wire import states
from xenplugin.wire.body import Buffer
from xenplugin.wire.frames import Chunk, Codec, Frame, Ping, Zeros
from xenplugin.wire.preamble import Carrier, Cipher, Preamble
from xenplugin.wire.session import MAX_FRAMES_PER_KEY, Reader, Writer

COMMON = settings(deadline=None, max_examples=60)


def chunk(index: int, length: int) -> Chunk:
    return Chunk(index, Codec.STORED, 1 if length else 0, 0, b"", bytes(length))


# -- pacer ----------------------------------------------------------------------------------------


@given(
    st.integers(1000, 10**9),
    st.integers(1, 32),
    st.lists(st.integers(1, SLICE), min_size=1, max_size=20),
    st.lists(st.floats(0, 0.01), min_size=1, max_size=20),
)
@settings(COMMON, max_examples=200)
def test_the_rate_holds_whatever_the_slices_and_the_callers(
    rate: int, callers: int, slices: list[int], idle: list[float]
) -> None:
    """On a clock of its own: `callers` each send a slice, sleep as they are told and are late now and then."""
    now = 0.0
    pacer = Pacer(rate, lambda: now)
    ready = [0.0] * callers  # when each may ask again
    sent, last = 0, 0.0
    seconds = 2 + 40 * SLICE / rate
    turn = 0
    while True:
        who = min(range(callers), key=ready.__getitem__)
        now = max(now, ready[who])
        if now > seconds:
            break
        count = slices[turn % len(slices)]
        if turn >= 3000:
            break
        leaves = now + pacer.due(count)
        assert leaves >= last
        sent, last = sent + count, leaves
        ready[who] = leaves + (idle[turn % len(idle)] / 1000 if turn % 7 == 0 else 0)
        turn += 1
        # never more than the rate and one burst; a slice may leave as soon as those before it have
        assert sent - count <= rate * (leaves + BURST) * 1.0001 + 1
    if turn < 3000:  # busy all the time: nearly all of the rate is used
        assert sent >= 0.95 * rate * last


def test_unused_time_is_kept_for_a_burst_only() -> None:
    now = 100.0
    pacer = Pacer(1000.0, lambda: now)
    assert pacer.due(500) == 0.0 and pacer.due(1) == pytest.approx(0.5)
    now = 200.0
    assert pacer.due(20) == 0.0 and pacer.due(1000) == pytest.approx(0.0) and pacer.due(1) == pytest.approx(1.0)


def test_waiting_is_sleeping_for_what_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("xenplugin.link.rate.time.sleep", slept.append)
    pacer = Pacer(100.0, lambda: 0.0)
    pacer.wait(50)
    pacer.wait(50)
    assert slept == [pytest.approx(0.5)]


# -- queue ----------------------------------------------------------------------------------------


class Queue(RuleBasedStateMachine):
    """The queue against a deque; calls that would wait are not made."""

    capacity = 2000

    def __init__(self) -> None:
        super().__init__()
        self.queue = SendQueue(self.capacity)
        self.model: deque[Frame] = deque()
        self.left = 0
        self.starved = False
        self.place = 0

    @property
    def held(self) -> int:
        return sum(cost(frame) for frame in self.model)

    @precondition(lambda self: self.held < self.capacity)
    @rule(length=st.integers(0, 3000), zeros=st.booleans())
    def put(self, length: int, zeros: bool) -> None:
        self.place += 1
        frame = Zeros(self.place, 1) if zeros else chunk(self.place, length)
        assert self.queue.put(frame)
        self.model.append(frame)

    @rule(gone=st.booleans())
    def get(self, gone: bool) -> None:
        self.starved |= not self.model
        frame = self.queue.get(lambda: gone, 0)
        if gone or not self.model:
            assert frame is None
        else:
            assert frame is self.model.popleft()
            self.left += cost(frame)

    @rule()
    def observe(self) -> None:
        assert self.queue.observe() == (self.left, self.starved)
        self.starved = False

    @invariant()
    def bounded(self) -> None:
        assert self.held < self.capacity + cost(chunk(0, 3000))


TestQueue = Queue.TestCase
TestQueue.settings = settings(COMMON, max_examples=40, stateful_step_count=40)


def test_a_full_queue_holds_up_who_puts_until_there_is_room() -> None:
    queue = SendQueue(1000)
    frames = [chunk(i, 700) for i in range(20)]
    accepted: list[int] = []

    def fill() -> None:
        for frame in frames:
            assert queue.put(frame)
            accepted.append(frame.index)

    filler = threading.Thread(target=fill)
    filler.start()
    seen = []
    for _ in frames:
        seen.append(queue.get(lambda: False, 30))
        # two fit (the second is let in below the capacity), and one may be on its way in
        assert len(accepted) - len(seen) <= 2
    filler.join(30)
    assert seen == frames and not filler.is_alive()
    assert queue.observe()[0] == sum(map(cost, frames))


def test_closing_ends_every_wait() -> None:
    queue = SendQueue(100)
    assert queue.put(chunk(0, 200))
    results: list[object] = []
    waiters = [threading.Thread(target=lambda: results.append(queue.put(chunk(1, 1))))]
    empty = SendQueue(100)
    waiters += [threading.Thread(target=lambda: results.append(empty.get(lambda: False, 1000))) for _ in range(3)]
    for waiter in waiters:
        waiter.start()
    queue.close()
    empty.close()
    for waiter in waiters:
        waiter.join(30)
    assert sorted(map(str, results)) == ["False", "None", "None", "None"]
    assert queue.get(lambda: False, 0) is None and not queue.put(chunk(2, 1))


def test_a_wake_lets_the_gone_go() -> None:
    queue = SendQueue(100)
    gone = threading.Event()
    asked = threading.Event()
    results: list[object] = []

    def look() -> bool:
        asked.set()
        return gone.is_set()

    waiter = threading.Thread(target=lambda: results.append(queue.get(look, 1000)))
    waiter.start()
    assert asked.wait(30)
    gone.set()
    queue.wake()
    waiter.join(30)
    assert results == [None]


# -- a connection's book --------------------------------------------------------------------------


class Memory:
    """An endpoint that keeps what is sent, and breaks when told to."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.broken = False
        self.closed = False
        self.carried = 0

    def send(self, *parts: Buffer) -> None:
        if self.broken:
            raise ConnectionResetError
        for part in parts:
            self.sent += part
            self.carried += len(part)

    def receive_into(self, space: memoryview) -> int:
        return 0

    def close(self) -> None:
        self.closed = True


KEYS = Keys(bytes(32), bytes(32))
HEAD = Preamble(Cipher.AES_128_GCM, Carrier.CONNECTION, 1, bytes(16), bytes(32))


def line(endpoint: Memory) -> Connection:
    reader = Reader(states.BACKWARD_DATA, opener=KEYS.backward(HEAD), size=1 << 40)
    return Connection(1, endpoint, Writer(KEYS.forward(HEAD)), reader, HEAD.pack())


@given(
    st.lists(st.one_of(st.integers(0, 8), st.sampled_from(["chunk", "zeros", "ping"])), max_size=40), st.booleans()
)
@settings(COMMON, max_examples=200)
def test_what_is_lost_is_exactly_what_was_not_acknowledged(steps: list[int | str], breaks: bool) -> None:
    endpoint = Memory()
    made = line(endpoint)
    model: list[Frame] = []
    acked = total = 0
    for place, step in enumerate(steps):
        if step == "ping":
            made.send(Ping())
        elif isinstance(step, str):
            frame = chunk(place, 10) if step == "chunk" else Zeros(place, 3)
            made.send(frame)
            model.append(frame)
            total += 1
        elif acked + step > total:
            with pytest.raises(ValueError):
                made.acknowledged(acked + step)
            return
        else:
            acked += step
            made.acknowledged(acked)
            made.acknowledged(max(0, acked - 1))  # an older count says nothing new
            del model[:step]
    if breaks:
        endpoint.broken = True
        model.append(Zeros(1000, 1))
        with pytest.raises(OSError):
            made.send(model[-1])  # type: ignore[arg-type]
    rest = made.abandon()
    assert [(type(f), getattr(f, "index", getattr(f, "first", None))) for f in rest] == [
        (type(f), getattr(f, "index", getattr(f, "first", None))) for f in model
    ]
    assert all(not f.payload for f in rest if isinstance(f, Chunk)), "payloads are not kept"
    assert endpoint.closed and made.abandon() == []
    made.acknowledged(total + 5)  # the reader was still at it


def test_the_preamble_goes_out_once_and_first() -> None:
    endpoint = Memory()
    made = line(endpoint)
    made.send(Ping())
    made.send(Ping())
    assert endpoint.sent.count(HEAD.pack()) == 1 and endpoint.sent.startswith(HEAD.pack())
    assert made.bytes_wire == len(endpoint.sent) == 64 + 2 * 21


def test_a_key_is_spent_before_it_must_not_seal() -> None:
    made = line(Memory())
    assert not made.spent
    made._writer.counter = MAX_FRAMES_PER_KEY - 1024
    assert made.spent
    made.send(Ping())


# -- how many connections -------------------------------------------------------------------------


@given(st.floats(0, 2), st.floats(0, 2))
@COMMON
def test_a_longer_path_never_gets_fewer_connections(one: float, two: float) -> None:
    near, far = sorted((one, two))
    assert 1 <= tcp.choose_streams(near, 2) <= tcp.choose_streams(far, 2) <= tcp.MAX_STREAMS
    assert 1 <= tcp.choose_streams(near, 1) <= tcp.choose_streams(far, 1) <= 4


def test_the_rate_can_be_changed_and_lifted() -> None:
    now = [0.0]
    pacer = Pacer(100.0, lambda: now[0])
    pacer.due(1000)
    assert pacer.due(1000) > 9
    pacer.set(1e6)
    assert pacer.due(1000) < 0.1  # what the old rate would have made it wait is forgotten
    assert pacer.due(1_000_000) < 0.1 < 0.9 < pacer.due(1)
    pacer.set(0)
    assert pacer.due(1 << 40) == 0
    pacer.set(1000.0)
    now[0] = 5.0
    pacer.due(1000)
    assert 0.9 < pacer.due(1) <= 1
