"""Questions and answers of a measurement: what one side packs the other reads, and nothing else."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.errors import PeerError
from xenplugin.geometry import BLOCK, CHUNK
from xenplugin.image.index.digest import ZERO_LEAF, leaves, zero_leaf
from xenplugin.image.target.base_index import IndexItem, IndexLeaves, IndexNone, IndexZeros
from xenplugin.transfer.measuring.host_load import HostLoad
from xenplugin.transfer.measuring.measurement_messages import (
    MOST_CHUNKS,
    About,
    AnsweredChunk,
    Question,
    pack_answer,
    unpack_answer,
)
from xenplugin.transfer.sessions.job import MeasuredImage

SIZE = 3 * CHUNK + BLOCK + 100  # the last chunk has a block and a short one
IMAGES = [MeasuredImage("/a", SIZE, False, {}, {}), MeasuredImage("/b", 0, True, {}, {})]


def leaf(number: int) -> bytes:
    return hashlib.sha256(bytes([number])).digest()


FULL = b"".join(leaf(n) if n % 3 else ZERO_LEAF for n in range(16))
ITEMS: list[IndexItem] = [
    IndexLeaves(0, FULL),
    IndexZeros(1, 1),
    IndexNone(2, 1),
    IndexLeaves(3, leaf(1) + leaf(2)),
]
ASKED = Question(0, (0, 1, 2, 3))
PACKED = pack_answer(1500, ITEMS, SIZE)


def test_an_answer_is_read_as_it_was_packed() -> None:
    seconds, found = unpack_answer(PACKED, ASKED, SIZE)
    assert seconds == 0.0015
    assert [chunk.leaves for chunk in found] == [FULL, ZERO_LEAF * 16, None, leaf(1) + leaf(2)]


def test_a_short_chunk_of_zeros_has_a_short_leaf() -> None:
    _, (found,) = unpack_answer(pack_answer(0, [IndexZeros(3, 1)], SIZE), Question(0, (3,)), SIZE)
    assert found.leaves == ZERO_LEAF + zero_leaf(100) == leaves(memoryview(bytes(BLOCK + 100)), BLOCK + 100)


def test_an_answer_of_the_most_chunks_fits() -> None:
    item = IndexLeaves(0, b"".join(map(leaf, range(16))))
    assert len(pack_answer(1 << 40, [item] * MOST_CHUNKS, SIZE)) <= 16384


@pytest.mark.parametrize("cut", range(len(PACKED)))
def test_an_answer_that_was_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(PeerError):
        unpack_answer(PACKED[:cut], ASKED, SIZE)


@pytest.mark.parametrize(
    ("data", "chunks"),
    [
        (PACKED + b"\0", (0, 1, 2, 3)),
        (bytes(4) + b"\3", (0,)),
        (bytes(4) + b"\2\0\2" + leaf(1), (3,)),  # the short last block is called zero
        (bytes(4) + b"\2\0\5" + leaf(1), (3,)),  # and one beyond it
        (bytes(4), (0,)),
        (bytes(4) + bytes(2), (0,)),
    ],
)
def test_an_answer_that_does_not_fit_its_question_is_refused(data: bytes, chunks: tuple[int, ...]) -> None:
    with pytest.raises(PeerError):
        unpack_answer(data, Question(0, chunks), SIZE)


@given(st.binary(max_size=1200))
def test_any_answer_is_read_or_refused(data: bytes) -> None:
    try:
        _, found = unpack_answer(data, ASKED, SIZE)
    except PeerError:
        return
    assert len(found) == 4
    for index, chunk in zip(ASKED.chunks, found, strict=True):
        assert chunk.leaves is None or len(chunk.leaves) == 32 * (2 if index == 3 else 16)


def test_the_blocks_that_are_the_same_need_not_be_sent() -> None:
    mine = leaf(1) + leaf(5) + leaf(3)
    assert AnsweredChunk(leaf(1) + leaf(2) + leaf(3)).known(mine) == 0b101
    assert AnsweredChunk(None).known(mine) == 0


def test_a_question_is_read_as_it_was_asked() -> None:
    assert Question.of(ASKED.fields, IMAGES) == ASKED
    assert Question.of({"image": 1, "chunks": []}, IMAGES) == Question(1, ())


@pytest.mark.parametrize("chunks", [[4], [-1], ["0"], [True], [0.0], None, 5, [0] * 32, [10**400]])
def test_a_question_about_what_is_not_there_is_refused(chunks: Any) -> None:
    with pytest.raises(PeerError):
        Question.of({"image": 0, "chunks": chunks}, IMAGES)


@pytest.mark.parametrize("number", [2, -1, "0", True, None, 0.0])
def test_a_question_about_no_image_is_refused(number: Any) -> None:
    with pytest.raises(PeerError):
        Question.of({"image": number, "chunks": []}, IMAGES)


ABOUT = About("b00t", 0.0005, HostLoad(1.5, 0.25), (1,))


def test_what_the_far_side_says_of_itself_is_read_as_it_was_said() -> None:
    assert About.of(ABOUT.fields, 2) == ABOUT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("boot", 5),
        ("boot", None),
        ("hash_seconds", 0),
        ("hash_seconds", -1),
        ("hash_seconds", "1"),
        ("hash_seconds", float("inf")),
        ("hash_seconds", float("nan")),
        ("running", -1),
        ("running", float("inf")),
        ("steal", 1.5),
        ("steal", None),
        ("hidden", {}),
        ("hidden", ["0"]),
        ("hidden", [2]),
        ("hidden", [-1]),
    ],
)
def test_what_makes_no_sense_of_the_far_side_is_refused(name: str, value: Any) -> None:
    with pytest.raises(PeerError):
        About.of({**ABOUT.fields, name: value}, 2)
