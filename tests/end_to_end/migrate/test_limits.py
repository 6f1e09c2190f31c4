"""Whatever hangs on the far host: the guest is suspended for max_downtime at most, and ctrl-C ends it soon."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence

import pytest

from tests.fakes.world import World
from tests.helpers.program import Running, wait_until


def held(world: World, host: str, point: str) -> Running:
    """A migration that is held at `point` until the test ends."""
    world.create()
    side = world.a if host == "a" else world.b
    side.stall(point)
    running = world.migrate()
    wait_until(lambda: side.reached(point) or running.process.poll() is not None, point)
    assert side.reached(point), running.end().err
    return running


def stop(world: World, who: str) -> list[int]:
    pids = world.pids(who)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return pids


def go_on(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it was ended
            os.kill(pid, signal.SIGCONT)


def resumed(world: World, running: Running, stopped: Sequence[int] = ()) -> None:
    """The guest goes on at the source while what hangs still hangs; then everything is settled."""
    wait_until(lambda: world.a.states() == {"g1": "runs"} or running.process.poll() is not None, "resumed")
    assert world.a.states() == {"g1": "runs"}
    world.await_writes()
    go_on(stopped)
    for point in ("r.read", "r.restored"):
        world.b.release(point)


@pytest.mark.parametrize("point", ["r.read", pytest.param("r.restored", marks=pytest.mark.slow)])
def test_a_far_xl_that_hangs_while_the_guest_is_suspended(world: World, point: str) -> None:
    """Its host answers, so the link is alive."""
    world.a.configure(max_downtime="2s")
    running = held(world, "b", point)
    resumed(world, running)
    done = running.end()
    assert done.code == 14 and "max_downtime" in done.error and done.hint
    world.await_quiet()
    world.assert_intact(world.a)
    world.assert_settled()


@pytest.mark.parametrize("who", ["receive-disk", "receive-domain"])
def test_a_far_side_that_hangs_while_the_guest_is_suspended(world: World, who: str) -> None:
    """As if the file system that it writes to were frozen."""
    world.a.configure(max_downtime="2s", patience="60s")
    running = held(world, "a", "s.suspended")
    stopped = stop(world, who)
    world.a.release("s.suspended")
    resumed(world, running, stopped)
    done = running.end()
    assert done.code == 14 and "max_downtime" in done.error
    world.await_quiet()
    world.assert_intact(world.a)
    world.assert_settled()


@pytest.mark.parametrize("point", ["s.suspended", pytest.param("r.restored", marks=pytest.mark.slow)])
def test_a_moment_within_the_limit_is_no_failure(world: World, point: str) -> None:
    world.a.configure(max_downtime="60s")
    side = "a" if point.startswith("s") else "b"
    running = held(world, side, point)
    (world.a if side == "a" else world.b).release(point)
    assert running.end().code == 0
    world.await_quiet()
    world.assert_intact(world.b)


def test_static_has_no_limit(world: World) -> None:
    """There the guest is suspended for as long as its disks take, as the user wanted it."""
    world.a.configure(max_downtime="1s")
    world.create()
    world.moved("--mode", "static", "--rate", "8mbit")
    world.assert_intact(world.b)


@pytest.mark.parametrize("who", ["receive-disk", "receive-domain", "far-xl"])
@pytest.mark.parametrize("point", ["s.memory0", "s.suspended"])
def test_ctrl_c_while_the_far_side_hangs(world: World, who: str, point: str) -> None:
    for host in (world.a, world.b):
        host.configure(patience="1h", silence="1h")  # it is not their end that is awaited
    running = held(world, "a", point)
    stopped = stop(world, who)
    world.a.release(point)
    running.signal(signal.SIGINT)
    wait_until(lambda: world.a.states() == {"g1": "runs"}, "the guest runs")
    assert running.end().code == 130
    go_on(stopped)
    world.await_quiet()
    world.assert_intact(world.a)
