"""Rounds over connections that overtake, lose and deliver late: what the far side has in the end is the image.

The far side is a model that keeps to docs/wire-format.md, section 6, and minds each rule of it.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from xenplugin.errors import ImageError
from xenplugin.geometry import CHUNK
from xenplugin.image.index.digest import ImageDigest, chunk_digest, zero_leaf
from xenplugin.image.index.sent_leaves import SentLeaves
from xenplugin.image.sparse import Run
from xenplugin.transfer.chunks.chunk_tracker import LiveChunkTracker
from xenplugin.transfer.chunks.plan import Plan, in_order
from xenplugin.transfer.chunks.remote_index import RemoteIndex
from xenplugin.wire.frames import Chunk, Codec, IndexRun, Sent, Zeros

CHUNKS = 5
BLOCKS = 16
Content = tuple[int, ...]
ZERO: Content = (0,) * BLOCKS


def leaves_of(content: Content) -> bytes:
    return b"".join(hashlib.sha256(b"%d" % block).digest() if block else zero_leaf(65536) for block in content)


class Far:
    """What the acceptor has: content and version of each chunk."""

    def __init__(self) -> None:
        self.content: dict[int, Content] = {}
        self.versions: dict[int, int] = {}

    def take(self, frame: Sent, snapshot: Content) -> None:
        if isinstance(frame, Zeros):
            for index in range(frame.first, frame.first + frame.count):
                if not self.versions.get(index):
                    self.content[index], self.versions[index] = ZERO, 0
            return
        assert isinstance(frame, Chunk)
        index = frame.index
        if index in self.versions and frame.version <= self.versions[index]:
            return
        assert not frame.known_map or frame.version  # there is no base
        before = self.content.get(index, ZERO)
        now = tuple(
            snapshot[bit] if frame.data_map >> bit & 1 else before[bit] if frame.known_map >> bit & 1 else 0
            for bit in range(BLOCKS)
        )
        assert chunk_digest(leaves_of(now)) == frame.digest, "not what its digest says"
        self.content[index], self.versions[index] = now, frame.version


class Rounds(RuleBasedStateMachine):
    """A guest, workers, connections and the far side, each a step at a time."""

    @initialize(image=st.lists(st.sampled_from([ZERO, (1,) * BLOCKS, (2, *ZERO[1:])]), min_size=5, max_size=5))
    def begin(self, image: list[Content]) -> None:
        size = CHUNKS * CHUNK
        base = RemoteIndex(size)
        base.add(IndexRun(0, CHUNKS, False))
        self.folder = tempfile.TemporaryDirectory()
        self.image = image
        self.tracker = LiveChunkTracker(size, base, SentLeaves(Path(self.folder.name), CHUNKS))
        self.plan = Plan(())
        self.queue: list[tuple[Sent, Content]] = []
        self.way: list[tuple[Sent, Content]] = []  # sent on the connection there is, not acknowledged
        self.late: list[tuple[Sent, Content]] = []  # on lost connections, may arrive yet
        self.far = Far()
        self.dirty: set[int] = set()
        self.suspended = False
        self.total: int | None = None
        self.packers: list[tuple[int | Zeros, Content]] = []
        holes = [index for index, content in enumerate(image) if content == ZERO][:2]
        self.tracker.begin_round(last=False)
        self.plan.begin_round(in_order(Run(index, 1, index in holes) for index in range(CHUNKS)))

    def teardown(self) -> None:
        if not hasattr(self, "tracker"):
            return
        while self.tracker.rounds < 2:
            self.drive()
            self.next_round()
        if not self.suspended:
            self.suspend()
        for _ in range(3 * CHUNKS):
            self.drive()
        self.freeze()
        self.drive()
        assert self.total is not None
        assert [self.far.content[index] for index in range(CHUNKS)] == self.image
        assert sum(self.far.versions.values()) == self.total
        tree = ImageDigest(CHUNKS * CHUNK)
        for index, content in enumerate(self.image):
            tree.add(index, chunk_digest(leaves_of(content)))
        assert self.tracker.digest.root() == tree.root()
        self.folder.cleanup()

    def drive(self) -> None:
        """Let everything go its way for a while, without losses."""
        while self.work():
            pass
        while self.queue:
            self.send(1)
        while self.way:
            self.deliver(0)

    # -- the guest ----------------------------------------------------------------------------------

    @precondition(lambda self: not self.suspended)
    @rule(index=st.integers(0, CHUNKS - 1), block=st.integers(0, 2), value=st.integers(0, 3))
    def write(self, index: int, block: int, value: int) -> None:
        content = list(self.image[index])
        content[block] = value
        self.image[index] = tuple(content)
        self.dirty.add(index)

    # -- the source -----------------------------------------------------------------------------------

    def work(self) -> bool:
        """A worker does all of an item; whether there was one."""
        self.read()
        if not self.packers:
            return False
        self.pack(0)
        return True

    @rule()
    def read(self) -> None:
        """A worker takes an item and reads it."""
        item = self.plan.take(wait=False)
        if item is None:
            return
        for place, (other, _) in enumerate(self.packers):
            if other == item:  # LiveChunkTracker.reading lets nobody else read it meanwhile
                self.pack(place)
                break
        self.packers.append((item, ZERO if isinstance(item, Zeros) else self.image[item]))

    @precondition(lambda self: self.packers)
    @rule(place=st.integers(0, 9))
    def pack(self, place: int) -> None:
        """A worker asks the tracker about what it has read, and sends it."""
        item, content = self.packers.pop(place % len(self.packers))
        if isinstance(item, Zeros):
            self.tracker.add_zeros(item)
            self.queue.append((item, ZERO))
        else:
            mask = sum(1 << bit for bit, block in enumerate(content) if block)
            if not mask and self.tracker.is_first(item):
                run = Zeros(item, 1)
                self.tracker.add_zeros(run)
                self.queue.append((run, ZERO))
            else:
                leaves = leaves_of(content)
                digest = chunk_digest(leaves)
                decision = self.tracker.decide(item, mask, leaves, digest)
                if decision is not None:
                    data = mask & ~decision.known
                    frame = Chunk(item, Codec.STORED, data, decision.known, digest, b"", decision.version)
                    self.queue.append((frame, content))
        self.plan.finished()

    @rule()
    def next_round(self) -> None:
        if not self.suspended and self.tracker.wait_arrived(self.plan, 0):
            self.tracker.begin_round(last=False)
            items, self.dirty = self.dirty, set()
            self.plan.begin_round(iter(sorted(items)))

    @precondition(lambda self: self.tracker.rounds > 1 and not self.suspended)
    @rule(compare=st.booleans())
    def suspend(self, compare: bool = False) -> None:
        """In the middle of a round, whatever is under way."""
        self.suspended = True
        left = {item for item in self.plan.end_round() if isinstance(item, int)} | self.dirty
        self.tracker.begin_round(last=True)
        self.plan.begin_round(iter(range(CHUNKS)) if compare else iter(sorted(left)))

    @precondition(lambda self: self.suspended and self.total is None)
    @rule()
    def freeze(self) -> None:
        while self.total is None:
            self.total = self.tracker.freeze(self.plan)
            if self.total is None and not self.work():
                assert self.tracker.freeze(self.plan) is not None

    # -- the network ------------------------------------------------------------------------------------

    @precondition(lambda self: self.queue)
    @rule(count=st.integers(1, 4))
    def send(self, count: int) -> None:
        self.way += self.queue[:count]
        del self.queue[:count]

    @precondition(lambda self: self.way)
    @rule(place=st.integers(0, 9))
    def deliver(self, place: int) -> None:
        """Connections overtake each other."""
        frame, snapshot = self.way.pop(place % len(self.way))
        self.far.take(frame, snapshot)
        self.tracker.acknowledged([frame])

    @precondition(lambda self: self.way)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A connection is lost with what was on it; some of that arrives, now or later, or never."""
        lost = [self.way.pop(data.draw(st.integers(0, len(self.way) - 1)))]
        self.late += lost
        self.tracker.lost([frame for frame, _ in lost], self.plan.resend)

    @precondition(lambda self: self.late)
    @rule(place=st.integers(0, 9), drop=st.booleans())
    def arrive_late(self, place: int, drop: bool) -> None:
        frame, snapshot = self.late.pop(place % len(self.late))
        if not drop:
            self.far.take(frame, snapshot)


TestRounds = Rounds.TestCase
TestRounds.settings = settings(max_examples=150, stateful_step_count=60)


def test_an_image_that_is_written_to_after_the_end_is_an_error(tmp_path: Path) -> None:
    base = RemoteIndex(CHUNK)
    base.add(IndexRun(0, 1, False))
    tracker, plan = LiveChunkTracker(CHUNK, base, SentLeaves(tmp_path, 1)), Plan(())
    tracker.begin_round(last=True)
    frame = Chunk(0, Codec.STORED, 1, 0, b"", b"")
    assert tracker.decide(0, 1, leaves_of((1, *ZERO[1:])), bytes(32)) is not None
    assert plan.take(wait=False) is None
    assert tracker.freeze(plan) == 0
    tracker.lost([frame], plan.resend)
    with pytest.raises(ImageError, match="after its guest was suspended"):
        tracker.decide(0, 1, leaves_of((2, *ZERO[1:])), bytes(32))


def test_a_chunk_is_read_by_one_worker_at_a_time() -> None:
    """What was read before the last write must not be taken for newer than what was read after it."""
    base = RemoteIndex(CHUNK)
    with tempfile.TemporaryDirectory() as folder:
        tracker = LiveChunkTracker(CHUNK, base, SentLeaves(Path(folder), 1))
        order: list[str] = []

        def read() -> None:
            with tracker.reading(0):
                order.append("second")

        other = threading.Thread(target=read, daemon=True)
        with tracker.reading(0):
            other.start()
            other.join(0.2)
            order.append("first")
        other.join(60)
        assert order == ["first", "second"]
    model = Rounds()
    model.begin([(1,) * BLOCKS] * CHUNKS)
    model.drive()
    model.dirty.add(0)
    model.next_round()
    model.read()
    model.write(0, 0, 3)
    model.suspend()
    model.read()
    model.pack(len(model.packers) - 1)
    model.teardown()


def test_a_chunk_with_blocks_in_flight_is_sent_whole() -> None:
    """The last version overtakes the one before: it may name nothing known that only that one brings."""
    model = Rounds()
    model.begin([(1,) * BLOCKS] * CHUNKS)
    model.drive()
    model.write(0, 0, 3)
    model.next_round()
    model.work()
    model.send(1)
    model.write(0, 1, 2)
    model.suspend()
    model.work()
    model.send(1)
    assert [frame.version for frame, _ in model.way if isinstance(frame, Chunk)] == [1, 2]
    model.deliver(1)
    model.deliver(0)
    model.teardown()


def test_a_late_duplicate_chunk_changes_nothing() -> None:
    model = Rounds()
    model.begin([(1,) * BLOCKS] * CHUNKS)
    model.work()
    model.send(1)
    lost = model.way.pop()
    model.tracker.lost([lost[0]], model.plan.resend)
    model.write(0, 0, 3)
    model.drive()
    model.far.take(*lost)
    assert model.far.content[0][0] == 3 and model.far.versions[0] == 1
    model.teardown()
