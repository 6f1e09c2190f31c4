"""What the kernel says of connections, and what is made of it."""

from __future__ import annotations

import fcntl
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplugin.link import tcp
from xenplugin.link.tcp import UNSENT, UNSENT_LAST, Counters, is_lossy, set_unsent

_SIOCOUTQNSD = 0x894B

LEAST = 0.1


def looks(sent: int, again: int, rtt: float, connections: int = 4) -> list[Counters]:
    return [Counters(sent // connections, again // connections, rtt, LEAST)] * connections


@pytest.mark.parametrize(
    ("what", "before", "now", "sent", "again", "lossy"),
    [
        ("nothing is lost", 0.1, 0.1, 8000, 0, False),
        ("some are lost, and no queue is there", 0.1, 0.11, 8000, 80, True),
        ("a queue is there", 0.19, 0.19, 8000, 80, False),
        ("a queue was there: it dropped them, and all have given way", 0.19, 0.1, 8000, 80, False),
        ("a queue is building up", 0.1, 0.19, 8000, 80, False),
        ("fewer than a path that is well loses", 0.1, 0.1, 8000, 16, False),
        ("too few were sent to tell", 0.1, 0.1, 400, 40, False),
    ],
)
def test_a_path_that_loses_is_told_from_a_queue_that_drops(
    what: str, before: float, now: float, sent: int, again: int, lossy: bool
) -> None:
    assert is_lossy(looks(1000, 100, before), looks(1000 + sent, 100 + again, now)) is lossy, what


def test_without_connections_the_path_is_not_lossy() -> None:
    assert not is_lossy([], [])


def test_how_much_waits_unsent_can_be_changed_while_it_is_in_use() -> None:
    """Beyond it the kernel takes no more, though its buffer has room."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept()
        with far:
            set_unsent(near, UNSENT_LAST)
            near.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    near.send(bytes(4096))
            waiting = struct.unpack("i", fcntl.ioctl(near, _SIOCOUTQNSD, bytes(4)))[0]
            assert waiting <= 2 * UNSENT_LAST < UNSENT


@given(st.floats(0, 2), st.floats(0, 2))
@settings(max_examples=60)
def test_a_longer_path_never_gets_fewer_connections(one: float, two: float) -> None:
    near, far = sorted((one, two))
    assert 1 <= tcp.choose_streams(near, 2) <= tcp.choose_streams(far, 2) <= tcp.MAX_STREAMS
    assert 1 <= tcp.choose_streams(near, 1) <= tcp.choose_streams(far, 1) <= 4
