"""A pool that sends over few of its connections."""

from __future__ import annotations

import contextlib
import queue
import time

import pytest

from xenplugin.link import pool as pool_module
from xenplugin.wire.frames import Frame, Ping

from .pool_kit import PATIENT, FarEnd, World, chunk

#: A thread that dies of an error nobody foresaw would leave others waiting.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")


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


def test_frames_of_a_lost_connection_do_not_wait_for_unused_connections(world: World) -> None:
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


def test_connections_used_again_get_their_share_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
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
