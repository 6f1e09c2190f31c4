"""The queue of frames to send."""

from __future__ import annotations

import threading
from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from xenplugin.link.queue import SendQueue, cost
from xenplugin.wire.frames import Chunk, Codec, Zeros

COMMON = settings(max_examples=60)


def chunk(index: int, length: int) -> Chunk:
    return Chunk(index, Codec.STORED, 1 if length else 0, 0, b"", bytes(length))


class Queue(RuleBasedStateMachine):
    """The queue against a deque; calls that would wait are not made."""

    capacity = 2000

    def __init__(self) -> None:
        super().__init__()
        self.queue = SendQueue(self.capacity)
        self.model: deque[Chunk | Zeros] = deque()
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


def test_put_waits_while_the_queue_is_full() -> None:
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


def test_wake_releases_a_consumer_whose_connection_is_gone() -> None:
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
