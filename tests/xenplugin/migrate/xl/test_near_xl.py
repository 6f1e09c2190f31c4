"""The near xl's protocol over a pair of pipes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from xenplugin.errors import LinkError, PeerError
from xenplugin.migrate.xl.near_xl import NearXl


class XlPipes:
    """Both ends of xl's pipes."""

    def __init__(self) -> None:
        source, self.writes = os.pipe()
        self.reads, sink = os.pipe()
        self.near = NearXl(source, sink)
        self.ends = [source, sink, self.writes, self.reads]

    def close(self, end: int) -> None:
        os.close(end)
        self.ends.remove(end)


@pytest.fixture
def pipes() -> Iterator[XlPipes]:
    made = XlPipes()
    yield made
    for end in made.ends:
        os.close(end)


def test_it_is_idle_once_whenever_xl_pauses(pipes: XlPipes) -> None:
    done: list[object] = []

    def idle() -> None:
        done.append("idle")
        if len(done) < 4:
            os.write(pipes.writes, b"more")
        else:
            pipes.close(pipes.writes)

    os.write(pipes.writes, b"first")
    for data in pipes.near.read(lambda: None, idle):
        done.append(data)
    assert done == [b"first", "idle", b"more", "idle"]


def test_what_ends_the_migration_ends_the_reading(pipes: XlPipes) -> None:
    def check() -> None:
        raise LinkError("the link is lost")

    with pytest.raises(LinkError):
        next(pipes.near.read(check, lambda: None))


def test_what_is_written_reaches_xl_until_it_ends(pipes: XlPipes) -> None:
    pipes.near.write(b"banner")
    assert os.read(pipes.reads, 100) == b"banner"
    pipes.close(pipes.reads)
    with pytest.raises(PeerError, match="xl on this host has ended"):
        pipes.near.write(b"x")


def test_disconnected_xl_sees_the_end_in_both_directions(pipes: XlPipes) -> None:
    pipes.near.disconnect()
    assert os.read(pipes.reads, 1) == b""
    with pytest.raises(BrokenPipeError):
        os.write(pipes.writes, b"x")
    pipes.near.write(b"x")  # goes nowhere
    assert list(pipes.near.read(lambda: None, lambda: None)) == []
