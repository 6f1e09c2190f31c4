"""Segments over connections that overtake each other, are lost and come twice; and how much may be under way."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from xenplugin.errors import PeerError
from xenplugin.transfer.streams.reassembly import Reassembly
from xenplugin.wire.frames import WINDOW, Codec, End, Segment

MIB = 1 << 20


def segment(number: int) -> Segment:
    return Segment(number, Codec.STORED, 1, bytes((number % 256,)))


class Carried(RuleBasedStateMachine):
    """A sender that keeps to the window, some connections, and what puts the segments in order."""

    def __init__(self) -> None:
        super().__init__()
        self.far: Reassembly[int] = Reassembly()
        self.next = 0
        self.queue: list[int] = []
        self.sent: dict[int, list[int]] = {0: [], 1: []}
        self.way: dict[int, list[int]] = {0: [], 1: []}
        self.acked: dict[int, int] = {0: 0, 1: 0}
        self.kept: list[int] = []
        self.out: list[int] = []
        self.lines = 2

    @rule(count=st.integers(1, 40))
    def write(self, count: int) -> None:
        for _ in range(count):
            if self.next < (min(self.kept) if self.kept else self.next) + WINDOW:
                self.queue.append(self.next)
                self.kept.append(self.next)
                self.next += 1

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        line = data.draw(st.sampled_from(sorted(self.way)))
        for _ in range(data.draw(st.integers(1, 20))):
            if self.queue:
                number = self.queue.pop(0)
                self.sent[line].append(number)
                self.way[line].append(number)

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        line = data.draw(st.sampled_from(sorted(self.way)))
        if self.way[line]:
            count = self.far.add(line, segment(self.way[line].pop(0)))
            if count is not None:
                self.take(line, count)

    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A connection is lost; what was on its way may still arrive before the far side notices."""
        line = data.draw(st.sampled_from(sorted(self.way)))
        for _ in range(data.draw(st.integers(0, len(self.way[line])))):
            self.far.add(line, segment(self.way[line].pop(0)))
        self.far.forget(line)
        self.queue += self.sent[line][self.acked[line] :]
        for book in (self.way, self.sent, self.acked):
            del book[line]
        self.way[self.lines], self.sent[self.lines], self.acked[self.lines] = [], [], 0
        self.lines += 1

    @rule(count=st.integers(1, 30))
    def read(self, count: int) -> None:
        for _ in range(count):
            ready = self.far.ready()
            if ready is None:
                return
            assert bytes(ready.payload) == bytes((ready.number % 256,))
            self.out.append(ready.number)
            for line, acked in self.far.hand_on():
                self.take(line, acked)

    def take(self, line: int, count: int) -> None:
        if line in self.acked:
            assert self.acked[line] < count <= len(self.sent[line])
            for number in self.sent[line][self.acked[line] : count]:
                assert number < self.far.handed
                if number in self.kept:
                    self.kept.remove(number)
            self.acked[line] = count

    @invariant()
    def in_order(self) -> None:
        assert self.out == list(range(len(self.out))) and self.far.handed == len(self.out)
        assert len(self.far._held) <= WINDOW

    def teardown(self) -> None:
        """Given time, everything arrives and everything is acknowledged."""
        while self.queue or any(self.way.values()):
            for line in self.way:
                self.sent[line] += self.queue
                self.way[line] += self.queue
                self.queue = []
                while self.way[line]:
                    count = self.far.add(line, segment(self.way[line].pop(0)))
                    if count is not None:
                        self.take(line, count)
            self.read(10**6)
        self.far.finish(End(b"d", self.next))
        assert self.far.ended == b"d" and len(self.out) == self.next and not self.kept


TestCarried = Carried.TestCase
TestCarried.settings = settings(max_examples=80, stateful_step_count=40)


def test_segments_outside_the_window_are_refused() -> None:
    far: Reassembly[int] = Reassembly()
    with pytest.raises(PeerError):
        far.add(0, segment(WINDOW))
    far.add(0, segment(WINDOW - 1))
    with pytest.raises(PeerError):
        far.finish(End(b"", WINDOW - 1))
    far = Reassembly()
    far.finish(End(b"d", 1))
    with pytest.raises(PeerError):
        far.add(0, segment(1))
    assert far.ended is None
    far.add(0, segment(0))
    assert far.ended is None and far.hand_on() == [(0, 1)] and far.ended == b"d"
    stuck: Reassembly[int] = Reassembly()
    with pytest.raises(PeerError, match="more segments came on a connection"):
        for _ in range(3 * WINDOW):  # none can be acknowledged before segment 0 came
            stuck.add(0, segment(1))
