"""How much of a stream may be in flight, on links of every kind."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from xenplugin.transfer.streams.inflight_limit import InflightLimit
from xenplugin.wire.frames import WINDOW

MIB = 1 << 20


def hand_on(allowed: InflightLimit, packed: float, now: float, ratio: int = 3) -> None:
    allowed.arrived(int(packed), int(packed) * ratio, now)


@given(st.floats(1e4, 5e9), st.floats(0, 0.3), st.floats(0.001, 0.2))
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


def test_a_slow_writer_does_not_lower_the_limit() -> None:
    allowed = InflightLimit()
    allowed.started(0.0)
    for second in range(100):
        hand_on(allowed, 1000, float(second))
    assert allowed.limit == 8 * MIB


@given(st.floats(0.05, 0.3), st.floats(2, 5))
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
def test_compressible_memory_near_the_end_does_not_lower_the_limit(rate: float, rtt: float, ratio: int) -> None:
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


def test_near_the_end_slow_start_does_not_lower_the_limit() -> None:
    allowed = InflightLimit()
    allowed.connected(0.2)
    allowed.started(100.0)
    allowed.prepare_stop()
    for tick in range(1, 6):
        allowed.limited()
        hand_on(allowed, 100_000, 100.0 + tick / 2)
        assert allowed.limit == 8 * MIB and allowed.segment == 512 << 10


def test_at_most_half_the_limit_is_given_up_near_the_end() -> None:
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
