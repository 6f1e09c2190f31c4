"""A copy to a file that was interrupted: what is kept, and what is sent again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.helpers.image_kit import (
    EXTENTS,
    SIZE,
    allocated,
    base_of,
    copy,
    leftovers,
    put,
    send,
    sink_for,
    sparse_image,
)
from xenplugin.geometry import BLOCK, CHUNK
from xenplugin.image.beside import journal_name, partial_name
from xenplugin.image.source.raw import open_source
from xenplugin.image.target import content, journal
from xenplugin.image.target.base_index import IndexNone, IndexZeros


def start_copy(image: Path, target: Path, stop: int) -> None:
    with open_source(image) as source, sink_for(target, SIZE) as sink:
        send(source, sink, base_of(sink.index(), source.chunks), stop=stop)
        sink.suspend()


def test_what_was_durable_is_not_sent_again(image: Path, target: Path) -> None:
    start_copy(image, target, 5)
    assert len(leftovers(target.parent)) == 2
    (listed,) = journal.read_all(target.parent / "state")[0]
    assert listed.target == str(target) and len(listed.durable) == 5
    with sink_for(target, SIZE) as sink:
        assert sink.resumed == 5 * CHUNK
        assert list(sink.index())[-1] == IndexNone(5, 5)
        sink.close()
    sent = copy(image, target)
    assert sent.known == 5 and target.read_bytes() == image.read_bytes()
    assert allocated(target) <= allocated(image)
    assert leftovers(target.parent) == []


def test_what_was_not_durable_comes_from_the_old_image(image: Path, target: Path) -> None:
    sparse_image(target, SIZE, EXTENTS)
    start_copy(image, target, 5)
    assert copy(image, target).data == 0
    assert target.read_bytes() == image.read_bytes()


def test_holes_that_were_put_meanwhile_are_not_zero_any_more(image: Path, target: Path) -> None:
    sparse_image(image, SIZE, [])
    start_copy(image, target, 10)
    with sink_for(target, SIZE) as sink:
        put(sink, 4, b"x" * CHUNK)
        sink.put_zeros(7, 2)
        assert list(sink.index()) == [
            IndexZeros(0, 4),
            IndexNone(4, 1),
            IndexZeros(5, 2),
            IndexNone(7, 2),
            IndexZeros(9, 1),
        ]
        sink.discard()


def test_another_source(tmp_path: Path, image: Path, target: Path) -> None:
    start_copy(image, target, 10)
    other = sparse_image(tmp_path / "other", SIZE, [(BLOCK, CHUNK), (7 * CHUNK, 9)], seed=3)
    copy(other, target)
    assert target.read_bytes() == other.read_bytes()
    assert allocated(target) <= allocated(other)


@pytest.mark.parametrize("size", [SIZE + 3 * CHUNK, SIZE + 1, 4 * CHUNK, 4 * CHUNK + 9])
def test_another_size(tmp_path: Path, image: Path, target: Path, size: int) -> None:
    start_copy(image, target, 10)
    other = sparse_image(tmp_path / "other", size, EXTENTS)
    with sink_for(target, size) as sink:
        assert sink.resumed == min(size, SIZE) // CHUNK * CHUNK
        sink.suspend()
    assert copy(other, target).known > 0
    assert target.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("lost", ["journal", "partial", "both exchanged"])
def test_a_partial_and_a_journal_that_do_not_belong_together(image: Path, target: Path, lost: str) -> None:
    start_copy(image, target, 10)
    part = Path(partial_name(str(target)))
    if lost == "journal":
        journal_name(str(target)).unlink()
    elif lost == "partial":
        part.unlink()
    else:
        part.rename(part.with_name("x"))
        sparse_image(part, SIZE, [(0, SIZE)], seed=9)
    with sink_for(target, SIZE) as sink:
        assert sink.resumed == 0 and list(sink.index()) == [IndexNone(0, 10)]
        sink.close()
    copy(image, target)
    assert target.read_bytes() == image.read_bytes()
    assert allocated(target) <= allocated(image)


def test_a_crash_between_rename_and_the_end(image: Path, target: Path) -> None:
    start_copy(image, target, 10)
    os.rename(partial_name(str(target)), target)
    assert copy(image, target).data == 0
    assert target.read_bytes() == image.read_bytes() and leftovers(target.parent) == []


def test_where_holes_cannot_be_made(
    tmp_path: Path, image: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "punch", lambda *_: False)
    start_copy(image, target, 10)
    other = sparse_image(tmp_path / "other", SIZE, [(5 * CHUNK + 7, 3)])
    copy(other, target)
    assert target.read_bytes() == other.read_bytes()
