"""What is reported to the adaptive level about the link, and when."""

from __future__ import annotations

import time
from typing import cast

import pytest

from xenplugin.codec.adaptive_level import AdaptiveLevel
from xenplugin.config import Config
from xenplugin.link import tcp
from xenplugin.link.connector import Connector
from xenplugin.link.pool import Pool
from xenplugin.link.queue import SendQueue
from xenplugin.transfer.sessions.path_tuning import PathTuner, QueueGauge
from xenplugin.wire.frames import Chunk, Codec


class Told(AdaptiveLevel):
    def __init__(self) -> None:
        super().__init__(None, 2)
        self.drains: list[tuple[int, float]] = []
        self.starved: list[bool] = []

    def drained(self, count: int, seconds: float, starved: bool) -> None:
        self.drains.append((count, round(seconds, 3)))
        self.starved.append(starved)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_slow_start_does_not_count_as_a_slow_link(clock: list[float]) -> None:
    queue, adaptive = SendQueue(1 << 20), Told()
    gauge = QueueGauge(queue, adaptive)

    def send(count: int) -> None:
        for _ in range(count):
            queue.put(Chunk(0, Codec.STORED, 1, 0, bytes(32), bytes(744)))
            queue.get(lambda: False, 0.0)

    gauge.read()
    gauge.connected(0.125)
    for _ in range(8):  # eight round trips of 0.125 s
        clock[0] += 0.125
        send(1)
        gauge.read()
    assert adaptive.drains == []
    clock[0] += 0.125
    send(50)
    gauge.read()
    clock[0] += 0.25
    send(70)
    gauge.read()
    clock[0] += 0.05
    gauge.read()
    assert adaptive.drains[-1] == (70_000, 0.25)
    assert sum(count for count, _ in adaptive.drains) <= 120_000


def test_without_a_connection_nothing_is_reported(clock: list[float]) -> None:
    adaptive = Told()
    gauge = QueueGauge(SendQueue(1 << 20), adaptive)
    clock[0] += 10.0
    gauge.read()
    assert adaptive.drains == []


def test_an_empty_queue_at_the_inflight_limit_is_not_starvation(clock: list[float]) -> None:
    """Else a long link, whose buffers take all at once, would be thought faster than it is, and nothing packed."""
    queue, adaptive = SendQueue(1 << 20), Told()
    gauge = QueueGauge(queue, adaptive)
    gauge.connected(0.0)
    for limited in (False, True, False):
        assert queue.get(lambda: False, 0.0) is None
        if limited:
            gauge.limit_reached()
        clock[0] += 1.0
        gauge.read()
    assert adaptive.starved == [True, False, True]


class Path:
    """A dialer and a pool of connections at once; `losses`: what each look will say."""

    def __init__(self, *losses: bool) -> None:
        self.rtt, self.wanted, self.bytes_wire = 0.1, tcp.CLEAN, 0
        self.losses = list(losses)
        self.congestion: list[str] = []

    def is_lossy(self) -> bool:
        return self.losses.pop(0)

    def set_congestion(self, name: str) -> None:
        self.congestion.append(name)

    def grow(self, rate: float, rtt: float) -> None:
        pass


@pytest.mark.parametrize(
    ("losses", "taken"),
    [((True, False, True, False), False), ((False, True, True), True), ((True, True), True), ((True,), False)],
)
def test_a_path_is_lossy_after_two_lossy_looks(clock: list[float], losses: tuple[bool, ...], taken: bool) -> None:
    path = Path(*losses)
    tuning = PathTuner(Config(), cast(Connector, path), cast(Pool, path))
    while path.losses:
        clock[0] += 1.0
        tuning.look()
    assert path.congestion == ([tcp.LOSSY] if taken else [])
    assert path.wanted == (tcp.LOSSY if taken else tcp.CLEAN)
