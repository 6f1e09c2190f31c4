"""Block events: lines of real traces, and a model of requests under way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.geometry import CHUNK
from xenplugin.xen import block_events
from xenplugin.xen.block_events import SECTOR, BlockEvent, DirtyTally, parse

SECTORS = CHUNK // SECTOR

# -- lines -----------------------------------------------------------------------------------------

RECORDED = """\
block_bio_queue: 7,0 WS 20480 + 6144 [python]
block_rq_complete: 7,0 WS () 20480 + 2560 be,0,4 [0]
block_rq_complete: 7,0 WS () 23040 + 2560 be,0,4 [0]
block_rq_complete: 7,0 WS () 25600 + 1024 be,0,4 [0]
block_bio_queue: 7,0 R 0 + 6144 [python]
block_rq_complete: 7,0 R () 0 + 6144 be,0,4 [0]
block_bio_queue: 7,0 DS 40960 + 4096 [blkdiscard]
block_rq_complete: 7,0 DS () 40960 + 4096 be,0,4 [0]
block_bio_queue: 7,0 NS 61440 + 2048 [blkdiscard]
block_rq_complete: 7,0 NS () 61440 + 2048 be,0,4 [0]
block_bio_queue: 7,0 FWS 0 + 0 [python]
block_rq_complete: 7,0 FF () 18446744073709551615 + 0 none,0,0 [0]
block_rq_complete: 7,0 WS () 0 + 0 be,0,4 [0]
"""  # of Linux 6.18, a loop device


def tally(text: str) -> set[int] | None:
    counted = DirtyTally(0, 64 * CHUNK)
    for line in text.splitlines():
        counted.add(parse(line))
    return counted.drain()


def test_recorded_writes_discards_and_zeroes_count_reads_and_flushes_do_not() -> None:
    assert tally(RECORDED) == {10, 11, 12, 20, 21, 30}


@pytest.mark.parametrize(
    ("line", "event"),
    [
        ("block_bio_queue: 253,7 WS 8 + 16 [1.xvda-0]", BlockEvent(True, (253, 7), "WS", 8, 16)),
        ("block_rq_complete: 8,0 WFS () 8 + 16 [0]", BlockEvent(False, (8, 0), "WFS", 8, 16)),  # of 6.1
        ("block_rq_complete: 8,0 W (12 00) 8 + 16 rt,1,4 [-5]", BlockEvent(False, (8, 0), "W", 8, 16)),
        ("block_bio_complete: 253,7 WS 8 + 16 [0]", BlockEvent(False, (253, 7), "WS", 8, 16)),
        ("block_bio_queue: 253,7 WS 8 + 16 [a b] c]", BlockEvent(True, (253, 7), "WS", 8, 16)),
    ],
)
def test_lines_of_other_kernels_and_devices(line: str, event: BlockEvent) -> None:
    assert parse(line) == event


@pytest.mark.parametrize(
    "line",
    [
        "CPU:0 [LOST 4829 EVENTS]",
        "CPU:1 [LOST EVENTS]",
        "",
        "block_bio_queue: 7,0 WS 20480 + 6144",
        "block_bio_queue: 7,0 WS 20480 + [python]",
        " block_bio_queue: 7,0 WS 8 + 8 [x]",
        "block_bio_remap: 7,0 WS 8 + 8 <- (7,1) 0",
        "block_bio_queue: 7,0 WS 8 + 8 [x",
        "block_bio_queue: -7,0 WS 8 + 8 [x]",
    ],
)
def test_an_unknown_line_counts_as_a_loss(line: str) -> None:
    assert parse(line) is None
    assert tally(f"{RECORDED}{line}\n") is None


# -- counting --------------------------------------------------------------------------------------


def event(queued: bool, sector: int, count: int) -> BlockEvent:
    return BlockEvent(queued, (7, 0), "W", sector, count)


def test_a_write_in_flight_is_reported_until_after_its_completion() -> None:
    counted = DirtyTally(0, 64 * CHUNK)
    counted.add(event(True, 5 * SECTORS, 8))
    assert counted.drain() == {5} and counted.drain() == {5}
    counted.add(event(False, 5 * SECTORS, 8))
    assert counted.drain() == {5} and counted.drain() == set()


def test_a_completion_without_its_submission_is_a_loss() -> None:
    counted = DirtyTally(0, 64 * CHUNK)
    counted.add(event(False, 0, 8))
    assert counted.drain() is None and counted.drain() == set()


def test_requests_in_flight_at_a_loss_are_a_loss_too() -> None:
    counted = DirtyTally(0, 64 * CHUNK)
    counted.add(event(True, 0, 8))
    counted.lose()
    assert counted.drain() is None and counted.drain() == set()
    counted.add(event(False, 0, 8))
    assert counted.drain() is None and counted.drain() == set()


def test_a_place_on_the_device_is_shifted_into_the_image() -> None:
    counted = DirtyTally(3 * CHUNK // 2, 4 * CHUNK)
    counted.add(event(True, 0, SECTORS))
    assert counted.drain() == {1, 2}
    counted = DirtyTally(-2048 * SECTOR, 4 * CHUNK)
    counted.add(event(True, 2048, 1))
    counted.add(event(True, 2048 + 3 * SECTORS, 99 * SECTORS))
    assert counted.drain() == {0, 3}


def test_too_many_writes_are_a_loss() -> None:
    counted = DirtyTally(0, 1 << 50)
    counted.add(event(True, 0, block_events._MOST * SECTORS + 1))
    assert counted.drain() is None


class FollowedDisk:
    """A disk of four chunks, and a reader that believes the tally. A write shows when its last part is done."""

    def __init__(self) -> None:
        self.disk, self.copy = [0] * 4, [0] * 4
        self.tally = DirtyTally(0, 4 * CHUNK)
        self.flying: list[tuple[int, int, int]] = []  # sector, count left, version
        self.version = 0

    def submit(self, sector: int, count: int, seen: bool) -> None:
        self.version += 1
        self.flying.append((sector, count, self.version))
        self.tell(True, sector, count, seen)

    def finish(self, which: int, part: int, seen: bool) -> None:
        if not self.flying:
            return
        sector, count, version = self.flying.pop(which % len(self.flying))
        done = min(count, part)
        self.tell(False, sector, done, seen)
        if done < count:
            self.flying.append((sector + done, count - done, version))
        for chunk in range(sector // SECTORS, -(-(sector + count) // SECTORS)):
            self.disk[chunk] = self.version = self.version + 1

    def tell(self, queued: bool, sector: int, count: int, seen: bool) -> None:
        self.tally.add(event(queued, sector, count) if seen else None)

    def read(self) -> None:
        told = self.tally.drain()
        for chunk in range(4) if told is None else told:
            self.copy[chunk] = self.disk[chunk]


SEEN = st.sampled_from([True, True, True, False])  # or was it lost?
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(0, 3 * SECTORS), st.integers(1, SECTORS), SEEN),
        st.tuples(st.just("finish"), st.integers(0, 9), st.integers(1, SECTORS), SEEN),
        st.tuples(st.just("read")),
    ),
    max_size=40,
)


@given(STEPS)
def test_a_reader_that_follows_the_reports_misses_no_write(script: list[tuple[object, ...]]) -> None:
    """What is read while a write is under way may be the old data; read after the last, the copy is the disk."""
    world = FollowedDisk()
    for name, *words in script:
        getattr(world, str(name))(*words)
    while world.flying:
        world.finish(0, SECTORS, True)
    world.read()
    assert world.copy == world.disk
