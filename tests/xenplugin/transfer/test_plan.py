"""The plan hands out every chunk and what is given back; the remote knows what the far side has."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from xenplugin.errors import ImageError, PeerError
from xenplugin.geometry import BLOCK, CHUNK, block_count, chunk_count, chunk_length
from xenplugin.image.source.raw import Run
from xenplugin.transfer import remote_index as index_module
from xenplugin.transfer.plan import Plan
from xenplugin.transfer.remote_index import RemoteIndex
from xenplugin.wire.frames import Chunk, Codec, Index, IndexRun, Zeros

COMMON = settings(deadline=None, max_examples=60)


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
    def runs() -> object:
        yield Run(0, 1, False)
        raise ImageError("the disk is gone")

    plan = Plan(runs())  # type: ignore[arg-type]
    assert plan.take() == 0
    plan.finished()
    for _ in range(2):  # whoever asks is told, not only the first
        with pytest.raises(ImageError):
            plan.take(wait=False)
    assert not plan.wait_covered(0)


# -- remote index -----------------------------------------------------------------------------------------


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


ZERO = {length: sha(bytes(length)) for length in (BLOCK, 100)}


@st.composite
def pairs(draw: st.DrawFn) -> tuple[int, list[list[bytes]], list[list[bytes] | None]]:
    """(size, leaves of each chunk here, leaves of each chunk there or None): few kinds, so that some are equal."""
    size = draw(st.sampled_from([CHUNK, 4 * CHUNK, 3 * CHUNK + 100, 6 * CHUNK + 2 * BLOCK + 100, 100]))

    def side(kinds: list[str]) -> list[list[bytes] | None]:
        out: list[list[bytes] | None] = []
        for index in range(chunk_count(size)):
            length = chunk_length(size, index)
            zero = [ZERO[min(BLOCK, length - at)] for at in range(0, length, BLOCK)]
            kind = draw(st.sampled_from(kinds))
            if kind == "none":
                out.append(None)
            elif kind == "zeros":
                out.append(zero)
            else:
                picks = draw(st.lists(st.integers(0, 2), min_size=len(zero), max_size=len(zero)))
                out.append([zero[i] if pick == 0 else sha(bytes([pick])) for i, pick in enumerate(picks)])
        return out

    here = [leaves for leaves in side(["mixed", "zeros"]) if leaves is not None]
    return size, here, side(["mixed", "zeros", "none"])


def told(size: int, there: list[list[bytes] | None], pick: st.DataObject) -> list[Index | IndexRun]:
    """What a far side might send for `there`: runs or frames, as it likes."""
    out: list[Index | IndexRun] = []
    for index, leaves in enumerate(there):
        zeros = leaves is not None and leaves == [ZERO[n] for n in ZERO if n in (BLOCK,)] * len(leaves)
        if leaves is None or (zeros and pick.draw(st.booleans())):
            out.append(IndexRun(index, 1, leaves is not None))
            continue
        zero_map = 0
        for block, leaf in enumerate(leaves):
            length = min(BLOCK, chunk_length(size, index) - block * BLOCK)
            if leaf == ZERO[length] and pick.draw(st.booleans()):  # zero blocks may be said either way
                zero_map |= 1 << block
        others = b"".join(leaf for block, leaf in enumerate(leaves) if not zero_map >> block & 1)
        if out and isinstance(out[-1], Index) and pick.draw(st.booleans()):
            out[-1] = Index(out[-1].first, (*out[-1].chunks, (zero_map, others)))
        else:
            out.append(Index(index, ((zero_map, others),)))
    return out


@given(pairs(), st.data())
@settings(COMMON, max_examples=150)
def test_known_is_what_is_equal(
    made: tuple[int, list[list[bytes]], list[list[bytes] | None]], pick: st.DataObject
) -> None:
    size, here, there = made
    remote = RemoteIndex(size)
    frames = told(size, there, pick)
    early = {i for i in range(len(here)) if pick.draw(st.booleans())}  # dropped before its index comes
    for index in early:
        remote.forget(index, 1)
    for frame in frames:
        remote.add(frame)
    order = pick.draw(st.permutations(range(len(here))))
    for index in order:
        theirs = there[index]
        naive = sum(1 << b for b, leaf in enumerate(here[index]) if theirs is not None and theirs[b] == leaf)
        known = remote.known(index, b"".join(here[index]))
        if index not in early:
            assert known == naive
        assert known & ~naive == 0
        assert known < 1 << block_count(chunk_length(size, index))
    assert not remote._leaves, "nothing is kept of what was asked or forgotten"


@given(st.integers(0, 5), st.integers(0, 5), st.booleans())
@COMMON
def test_an_index_with_a_gap_is_refused(first: int, second: int, run: bool) -> None:
    remote = RemoteIndex(20 * CHUNK)
    row = ((0xFFFF, b""),)
    for place, frontier in ((first, 0), (second, 1)):
        frame = IndexRun(place, 1, True) if run else Index(place, row)
        if place != frontier:
            with pytest.raises(PeerError):
                remote.add(frame)
            return
        remote.add(frame)


def test_known_waits_for_its_chunk_and_for_no_other() -> None:
    remote = RemoteIndex(4 * CHUNK)
    leaf = sha(b"x")
    results: list[int] = []
    worker = threading.Thread(target=lambda: results.append(remote.known(2, leaf * 16)))
    worker.start()
    remote.add(Index(0, ((0, leaf * 16), (0, leaf * 16))))
    assert remote.known(0, leaf * 16) == 0xFFFF and not results
    remote.add(Index(2, ((0, leaf * 15 + sha(b"y")),)))
    worker.join(30)
    assert results == [0x7FFF]


def test_closing_lets_everybody_go_with_nothing_known() -> None:
    remote = RemoteIndex(4 * CHUNK)
    results: list[int] = []
    workers = [threading.Thread(target=lambda i=i: results.append(remote.known(i, bytes(512)))) for i in range(3)]
    for worker in workers:
        worker.start()
    remote.close()
    for worker in workers:
        worker.join(30)
    assert results == [0, 0, 0]


def test_an_index_that_runs_ahead_is_refused_and_one_of_zeros_here_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "INDEX_AHEAD", 10)
    for forgotten in (False, True):
        remote = RemoteIndex(1000 * CHUNK)
        if forgotten:  # the source has zeros there: they are sent long before the index is there
            remote.forget(0, 500)
            for index in range(500, 1000, 2):
                remote.forget(index, 2)
        try:
            for index in range(1000):
                remote.add(Index(index, ((0, bytes(512)),)))
        except PeerError:
            assert not forgotten
        else:
            assert forgotten and not remote._leaves


def test_runs_that_the_index_has_passed_are_let_go_of() -> None:
    remote = RemoteIndex(10**6 * CHUNK)
    for index in range(0, 4000, 4):
        remote.forget(index + 1, 1)
        remote.add(IndexRun(index, 4, False))
        assert len(remote._unneeded) <= 300


def test_who_wants_only_what_was_lost_is_given_nothing_else() -> None:
    plan = Plan([Run(0, 3, False)])
    assert plan.take() == 0
    plan.finished()
    plan.resend([Chunk(0, Codec.STORED, 0, 0, b"", b"")])
    assert plan.take(fresh=False) == 0
    assert plan.take(wait=False, fresh=False) is None
    assert plan.take() == 1
