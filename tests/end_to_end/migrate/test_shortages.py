"""Something runs out in a phase of a migration: the exit code says where the guest is, and none is left suspended
without a word.

Each case stops the migration at a point, takes what there is of something (space in the state directory,
descriptors, memory and with it threads), and lets it go on."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.hosts import FakeHost
from tests.fakes.world import World
from tests.helpers.program import Done, wait_until

#: Points at which something runs out, of the source (a) and of the destination (b), from the first record on.
POINTS = [
    ("a", "s.memory0"), ("a", "s.suspended"), ("a", "s.received"), ("a", "s.renamed"), ("a", "s.report"),
    ("b", "r.config"), ("b", "r.read"), ("b", "r.restored"), ("b", "r.cleared"), ("b", "r.started"),
]  # fmt: skip


def fill(folder: Path) -> None:
    """Leave no block free in `folder`'s file system."""
    fd = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT)
    try:
        for size in (1 << 16, 4096):
            while os.write(fd, bytes(size)):
                pass
    except OSError as error:
        assert error.errno == errno.ENOSPC
    finally:
        os.close(fd)


def few_descriptors(pid: int) -> None:
    """Let process `pid` open as few more files as can be: those with numbers below its highest."""
    highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, hard))


def little_memory(pid: int) -> None:
    """Let process `pid` map no more memory, so that it can start no thread either."""
    size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def each_driver(world: World, shorten: Callable[[int], None]) -> Callable[[FakeHost], None]:
    """Return what takes something from the process that drives the migration on a host."""

    def on_host(side: FakeHost) -> None:
        for pid in world.pids("transport" if side is world.a else "receive-domain"):
            shorten(pid)

    return on_host


def run(world: World, point: tuple[str, str], shorten: Callable[[FakeHost], None]) -> Done:
    """A migration of which `shorten` takes something at `point`. The guest is where the exit code says."""
    world.create()
    side = world.a if point[0] == "a" else world.b
    side.stall(point[1])
    running = world.migrate()
    wait_until(lambda: side.reached(point[1]) or running.process.poll() is not None, point[1])
    assert side.reached(point[1]), running.end().err
    shorten(side)
    side.release(point[1])
    done = running.end()
    world.await_quiet()
    if done.code == 20:  # it says so, and recovery settles it when there is enough again
        assert "xenplugin recover" in done.hint
        (side.root / "state" / "filler").unlink(missing_ok=True)
        for host in (world.b, world.a, world.b):
            host.recover(code=None)
    where = world.assert_intact()
    if done.code not in (20, 130):
        assert (done.code == 0) == (where is world.b), f"exit {done.code}, it runs on {where.name}"
    return done


def small_state(world: World, host: FakeHost, small_disk: Callable[[int], Path]) -> Path:
    """Give `host` a state directory in a file system of 1 MiB."""
    folder = small_disk(1)
    (host.root / "state").rmdir()
    (host.root / "state").symlink_to(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS, ids="-".join)
def test_no_space_for_the_records(world: World, small_disk: Callable[[int], Path], point: tuple[str, str]) -> None:
    for host in (world.a, world.b):
        small_state(world, host, small_disk)
    done = run(world, point, lambda side: fill(side.root / "state"))
    if point in (("a", "s.memory0"), ("a", "s.suspended")):  # the record of a disk put aside has no space
        assert done.code == 13 and "No space left" in done.error
    else:
        assert done.code == 0, done.err  # every ownership record has its space beforehand
    world.assert_settled()


@pytest.mark.parametrize("side", "ab")
def test_no_space_at_the_beginning(world: World, small_disk: Callable[[int], Path], side: str) -> None:
    world.create()
    host = world.a if side == "a" else world.b
    folder = small_state(world, host, small_disk)
    (folder / "migrations").mkdir()
    for name in ("lock", "busy"):
        (folder / "migrations" / name).touch()
    fill(folder)
    done = world.migrate().end()
    assert done.code == 15 and "for the state directory" in done.error and "free some space" in done.hint
    world.await_quiet()
    assert world.assert_intact() is world.a
    world.assert_settled()


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS, ids="-".join)
def test_no_descriptors(world: World, point: tuple[str, str]) -> None:
    done = run(world, point, each_driver(world, few_descriptors))
    if point[1] not in ("s.memory0", "r.config"):  # connections may still have to be opened there
        assert done.code == 0, done.err


@pytest.mark.slow
@pytest.mark.parametrize("limit", [12, 20, 28, 36, 44, 52, 60])
@pytest.mark.parametrize("side", "ab")
def test_few_descriptors_from_the_beginning(world: World, side: str, limit: int) -> None:
    """Whatever cannot be opened: the guest is where the exit code says, and the reason is named."""
    world.create()
    host = world.a if side == "a" else world.b
    program = host.root / "bin" / "xenplugin"
    program.rename(program.with_name("unlimited"))
    program.write_text(f'#!/bin/sh\nulimit -n {limit}\nexec "{program.with_name("unlimited")}" "$@"\n')
    program.chmod(0o755)
    done = world.migrate().end()
    world.await_quiet()
    where = world.assert_intact()
    assert (done.code == 0) == (where is world.b) and done.code != 20, done.err
    assert done.code == 0 or "open" in done.error, done.err


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS, ids="-".join)
def test_no_memory(world: World, point: tuple[str, str]) -> None:
    run(world, point, each_driver(world, little_memory))


#: Has the program start no thread after so many (%d), in the process that runs a given verb (%r).
_FEW_THREADS = """
import sys, threading
if %r in sys.argv[1:2]:
    start, left = threading.Thread.start, [%d]
    def limited(thread):
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("can't start new thread")
        start(thread)
    threading.Thread.start = limited
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 2, 4, 6, 8, 10, 12, 15, 18, 22, 26, 30])
@pytest.mark.parametrize("verb", ["transport", "receive"])
def test_few_threads(world: World, verb: str, count: int) -> None:
    """Whichever thread cannot be started: the guest is where the exit code says, and the reason is named."""
    world.create()
    program = (world.a if verb == "transport" else world.b).root / "bin" / "xenplugin"
    first, rest = program.read_text().split("\n", 1)
    program.write_text(f"{first}\n{_FEW_THREADS % (verb, count)}{rest}")
    done = world.migrate().end()
    world.await_quiet()
    where = world.assert_intact()
    assert (done.code == 0) == (where is world.b) and done.code != 20, done.err
    assert done.code in (0, 14) or "thread" in done.error, done.err
