"""Which blocks the destination has already, by the index that it sends."""

from __future__ import annotations

import hashlib
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xenplugin.errors import PeerError
from xenplugin.geometry import BLOCK, CHUNK, block_count, chunk_count, chunk_length
from xenplugin.transfer.chunks import remote_index as index_module
from xenplugin.transfer.chunks.remote_index import RemoteIndex
from xenplugin.wire.frames import Index, IndexRun

COMMON = settings(max_examples=60)


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
def test_only_equal_blocks_are_known(
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


def test_closing_releases_all_waiters_with_nothing_known() -> None:
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
