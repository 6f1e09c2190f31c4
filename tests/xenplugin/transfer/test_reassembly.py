"""Segments over connections that overtake each other, are lost and come twice; and how much may be under way."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from xenplugin.errors import PeerError
from xenplugin.transfer.inflight_limit import InflightLimit
from xenplugin.transfer.reassembly import Reassembly
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
            del book[line]  # type: ignore[attr-defined]
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
TestCarried.settings = settings(deadline=None, max_examples=80, stateful_step_count=40)


def test_what_does_not_fit_is_refused() -> None:
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
    with pytest.raises(PeerError, match="more segments on a connection"):
        for _ in range(3 * WINDOW):  # none can be acknowledged before segment 0 came
            stuck.add(0, segment(1))


def hand_on(allowed: InflightLimit, packed: float, now: float, ratio: int = 3) -> None:
    allowed.arrived(int(packed), int(packed) * ratio, now)


@given(st.floats(1e4, 5e9), st.floats(0, 0.3), st.floats(0.001, 0.2))
@settings(deadline=None)
def test_the_limit_finds_the_link(rate: float, rtt: float, step: float) -> None:
    """A link that takes `rate` bytes/s: soon about twice what it takes in two round trips and a moment may wait."""
    now = 100.0
    allowed = InflightLimit()
    allowed.connected(rtt)
    allowed.started(now)
    for _ in range(10_000):
        now += step
        allowed.limited()
        hand_on(allowed, min(rate, allowed.limit / max(rtt, 1e-4)) * step, now)
    ideal = min(64 * MIB, max(2 * MIB, 2 * rate * (2 * rtt + 0.25)))
    assert 0.8 * ideal <= allowed.limit <= 1.2 * ideal


def test_a_writer_that_is_slow_narrows_nothing() -> None:
    allowed = InflightLimit()
    allowed.started(0.0)
    for second in range(100):
        hand_on(allowed, 1000, float(second))
    assert allowed.limit == 8 * MIB


@given(st.floats(0.05, 0.3), st.floats(2, 5))
@settings(deadline=None)
@example(0.3, 5.0)
def test_a_slow_start_is_not_taken_for_the_link(rtt: float, trips: float) -> None:
    """At first a segment takes several round trips, though the link could carry much more."""
    now = 100.0
    allowed = InflightLimit()
    allowed.started(1.0)  # long ago: it says nothing of now
    allowed.connected(rtt)
    allowed.started(now)
    for _ in range(200):
        now += rtt / 4
        allowed.limited()
        hand_on(allowed, allowed.limit / (trips * rtt) * rtt / 4, now)
        assert allowed.limit >= 8 * MIB
    assert allowed.limit > 16 * MIB


@given(st.floats(1e6, 1e8), st.floats(0, 0.3), st.floats(0.001, 0.05))
@settings(deadline=None)
def test_near_the_end_little_waits_and_the_link_is_kept_busy(rate: float, rtt: float, step: float) -> None:
    now, waits = 100.0, 0.0
    allowed = InflightLimit()
    allowed.connected(rtt)
    allowed.started(now)

    def go_on(seconds: float) -> None:
        nonlocal now, waits
        until = now + seconds
        while now < until:
            now += step
            carried = min(rate, allowed.limit / max(rtt, 1e-4))
            waits = (allowed.limit - carried * rtt) / carried
            allowed.limited()
            hand_on(allowed, carried * step, now)

    go_on(60)
    before = allowed.limit
    allowed.prepare_stop()
    assert allowed.limit < before
    go_on(10)
    assert allowed.limit >= rate * rtt  # what the link alone holds
    assert waits <= max(0.1, (512 << 10) / rate)
    assert 64 << 10 <= allowed.segment <= max(64 << 10, 3 * allowed.limit // 32)


@given(st.floats(1e6, 2e8), st.floats(0.02, 0.3), st.integers(20, 2000))
@settings(deadline=None)
def test_memory_that_packs_well_near_the_end_does_not_narrow_what_comes_after(
    rate: float, rtt: float, ratio: int
) -> None:
    """Then it is the number of segments that is bounded, not what they are packed to."""
    now, step = 100.0, 0.01
    allowed = InflightLimit()
    allowed.connected(rtt)
    allowed.started(now)

    def go_on(seconds: float, ratio: int) -> float:
        nonlocal now
        until, stream = now + seconds, 0
        while now < until:
            now += step
            by_limit, by_window = allowed.limit / rtt, WINDOW * allowed.segment / ratio / rtt
            carried = min(rate, by_limit, by_window)
            allowed.limited(by_limit <= by_window)
            hand_on(allowed, carried * step, now, ratio)
            stream += int(carried * step) * ratio
        return stream / seconds

    go_on(30, 3)
    go_on(30, ratio)
    before = go_on(10, ratio)
    allowed.prepare_stop()
    go_on(10, ratio)
    assert go_on(10, ratio) >= 0.5 * before
    go_on(10, 3)
    assert go_on(10, 3) >= 0.5 * min(3 * rate, 64 * MIB / rtt)


def test_zero_pages_go_in_the_largest_segments_however_far_it_is() -> None:
    """What bounds them is the number of segments under way, not the link."""
    allowed = InflightLimit()
    allowed.connected(0.2)
    assert allowed.segment == MIB // 2
    allowed.packed(MIB // 6, MIB // 2)
    assert allowed.segment == MIB // 2
    allowed.packed(100, MIB // 2)
    assert allowed.segment == MIB
    allowed.packed(MIB // 3, MIB)
    assert allowed.segment == MIB // 2


def test_in_slow_start_the_end_narrows_nothing() -> None:
    allowed = InflightLimit()
    allowed.connected(0.2)
    allowed.started(100.0)
    allowed.prepare_stop()
    for tick in range(1, 6):
        allowed.limited()
        hand_on(allowed, 100_000, 100.0 + tick / 2)
        assert allowed.limit == 8 * MIB and allowed.segment == 512 << 10


def test_whoever_shares_the_link_near_the_end_does_not_take_all_of_it() -> None:
    allowed = InflightLimit()
    allowed.started(0.0)
    for tick in range(1, 100):
        allowed.limited()
        hand_on(allowed, 50 * MIB, tick / 2)
    allowed.prepare_stop()
    least = allowed.limit // 2
    for tick in range(100, 300):
        allowed.limited()
        hand_on(allowed, 1000, tick / 2)
    assert allowed.limit == least


def test_a_stream_that_nothing_held_up_is_narrowed_when_something_does() -> None:
    allowed = InflightLimit()
    allowed.started(0.0)
    allowed.prepare_stop()
    assert allowed.limit == 8 * MIB
    allowed.limited()
    hand_on(allowed, MIB, 1.0)
    assert 512 << 10 <= allowed.limit < 2 * MIB
