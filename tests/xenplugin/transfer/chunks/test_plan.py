"""The plan hands out every chunk, and again what was lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from xenplugin.errors import ImageError
from xenplugin.image.sparse import Run
from xenplugin.transfer.chunks.plan import Plan
from xenplugin.wire.frames import Chunk, Codec, Zeros

COMMON = settings(max_examples=60)


def covered_by(item: int | Zeros) -> set[int]:
    return {item} if isinstance(item, int) else set(range(item.first, item.first + item.count))


def frame_of(item: int | Zeros) -> Chunk | Zeros:
    return item if isinstance(item, Zeros) else Chunk(item, Codec.STORED, 0, 0, b"", b"")


class Planned(RuleBasedStateMachine):
    """Workers take, finish, and connections give back: in any order, in one thread."""

    @initialize(lengths=st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=6))
    def begin(self, lengths: list[tuple[int, bool]]) -> None:
        runs, first = [], 0
        for count, hole in lengths:
            runs.append(Run(first, count, hole))
            first += count
        self.total = first
        self.plan = Plan(iter(runs))
        self.fresh: list[int | Zeros] = []
        for run in runs:
            every = range(run.first, run.first + run.count)
            self.fresh += [Zeros(run.first, run.count)] if run.hole else every
        self.again: list[int | Zeros] = []
        self.busy: list[int | Zeros] = []
        self.done: list[int | Zeros] = []
        self.exhausted = False

    @rule()
    def take(self) -> None:
        item = self.plan.take(wait=False)
        queue = self.again or self.fresh
        if queue:
            assert item == queue.pop(0)
            self.busy.append(item)
        else:
            assert item is None
            self.exhausted = True

    @precondition(lambda self: self.busy)
    @rule(which=st.integers(0, 100))
    def finish(self, which: int) -> None:
        self.done.append(self.busy.pop(which % len(self.busy)))
        self.plan.finished()

    @precondition(lambda self: self.done)
    @rule(picks=st.lists(st.integers(0, 100), max_size=3))
    def lose(self, picks: list[int]) -> None:
        lost = [self.done[pick % len(self.done)] for pick in picks]
        self.plan.resend([frame_of(item) for item in lost])
        self.again += lost

    @invariant()
    def covered_when_all_was_handed_out_and_finished(self) -> None:
        if hasattr(self, "plan"):
            all_done = self.exhausted and not self.busy and not self.again
            assert self.plan.wait_covered(0) == all_done
            if all_done:
                assert {i for item in self.done for i in covered_by(item)} == set(range(self.total))

    def teardown(self) -> None:
        if hasattr(self, "plan"):
            self.plan.close()
            assert self.plan.take() is None and self.plan.wait_covered(0)


TestPlanned = Planned.TestCase
TestPlanned.settings = settings(COMMON, max_examples=60, stateful_step_count=40)


def test_many_workers_take_each_chunk_once_and_what_is_lost_again() -> None:
    plan = Plan([Run(0, 50, False), Run(50, 10, True), Run(60, 40, False)])
    taken: Counter[int | Zeros] = Counter()
    lock = threading.Lock()
    lost = {3, 60, 99}

    def work() -> None:
        while (item := plan.take()) is not None:
            with lock:
                taken[item] += 1
                again = item in lost and taken[item] == 1
            if again:
                plan.resend([frame_of(item)])
            plan.finished()

    workers = [threading.Thread(target=work) for _ in range(5)]
    for worker in workers:
        worker.start()
    assert plan.wait_covered(60)
    assert all(worker.is_alive() for worker in workers), "they wait for what may be given back"
    plan.resend([Zeros(50, 10)])
    assert plan.wait_covered(60)
    plan.close()
    for worker in workers:
        worker.join(30)
    again = lost | {Zeros(50, 10)}
    assert taken == {item: 1 + (item in again) for item in [*range(50), Zeros(50, 10), *range(60, 100)]}


def test_a_source_that_cannot_be_read_leaves_the_plan_uncovered() -> None:
    def runs() -> Iterator[Run]:
        yield Run(0, 1, False)
        raise ImageError("the disk is gone")

    plan = Plan(runs())
    assert plan.take() == 0
    plan.finished()
    for _ in range(2):  # every caller gets the error, not only the first
        with pytest.raises(ImageError):
            plan.take(wait=False)
    assert not plan.wait_covered(0)


def test_without_fresh_only_lost_chunks_are_taken() -> None:
    plan = Plan([Run(0, 3, False)])
    assert plan.take() == 0
    plan.finished()
    plan.resend([Chunk(0, Codec.STORED, 0, 0, b"", b"")])
    assert plan.take(fresh=False) == 0
    assert plan.take(wait=False, fresh=False) is None
    assert plan.take() == 1
