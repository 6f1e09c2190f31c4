"""What the kernel says of connections, and what is made of it."""

from __future__ import annotations

import pytest

from xenplugin.link.tcp import Course, is_lossy

LEAST = 0.1


def courses(sent: int, again: int, rtt: float, connections: int = 4) -> list[Course]:
    return [Course(sent // connections, again // connections, rtt, LEAST)] * connections


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
    assert is_lossy(courses(1000, 100, before), courses(1000 + sent, 100 + again, now)) is lossy, what


def test_of_no_connections_nothing_is_said() -> None:
    assert not is_lossy([], [])
