"""A block device as target: overwritten in place, claimed, with a journal until it is complete."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.helpers.image_kit import (
    allocated,
    digest_of,
    needs_root,
    packed,
    put,
    send,
)
from tests.xenplugin.image.target.device.conftest import SIZE, sink_at, transfer
from xenplugin.errors import ImageError, PeerError
from xenplugin.geometry import BLOCK, CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import leaves
from xenplugin.image.source.raw import open_source
from xenplugin.image.target import device as device_target
from xenplugin.image.target import journal
from xenplugin.image.target.base_index import IndexLeaves, IndexNone
from xenplugin.image.target.chunk_update import ChunkUpdate
from xenplugin.image.target.sink import Sink

pytestmark = needs_root


@pytest.mark.parametrize("can_punch", [True, False])
def test_the_device_becomes_the_image(
    image: Path, backing: Path, device: Path, state: Path, can_punch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_punch:
        monkeypatch.setattr(device_target, "punch", lambda *_: False)
    assert transfer(image, device, state) > 0
    assert device.read_bytes() == image.read_bytes() == backing.read_bytes()
    assert list(state.iterdir()) == []
    if can_punch:
        assert allocated(backing) < 5 * CHUNK  # zero chunks were given back


def test_only_the_difference_is_written(image: Path, backing: Path, device: Path, state: Path) -> None:
    transfer(image, device, state)
    assert transfer(image, device, state) == 0
    with open(image, "r+b") as file:
        file.seek(3 * CHUNK + BLOCK + 5000)
        file.write(b"changed")
        file.seek(5 * CHUNK)
        file.write(b"also")
    assert transfer(image, device, state) == 2
    assert backing.read_bytes() == image.read_bytes()


def test_zero_chunks_that_are_zero_already_are_left_alone(
    image: Path, device: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer(image, device, state)
    calls: list[tuple[int, int]] = []

    def punch(_: object, at: int, length: int) -> bool:
        calls.append((at, length))
        return True

    monkeypatch.setattr(device_target, "punch", punch)
    transfer(image, device, state)
    assert calls == []
    with sink_at(device, state) as sink:
        sink.put_zeros(1, 2)  # without its index: nobody has looked
        assert calls == [(CHUNK, 2 * CHUNK)]


def test_a_device_that_does_not_keep_zeros(device: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_target, "punch", lambda *_: True)
    with sink_at(device, state) as sink, pytest.raises(ImageError, match="does not read as zeros"):
        sink.put_zeros(1, 2)


def test_known_blocks_stay_where_they_are(backing: Path, device: Path, state: Path) -> None:
    old = backing.read_bytes()
    new = old[:BLOCK] + b"n" * BLOCK + bytes(BLOCK) + old[3 * BLOCK : CHUNK]
    with sink_at(device, state) as sink:
        sink.put(ChunkUpdate(0, 0b010, 0xFFF9, packed(new, 0b010), digest_of(new)), Buffer(CHUNK))
        with pytest.raises(ImageError, match="not what was sent"):
            sink.put(ChunkUpdate(1, 0, 0xFFFE, memoryview(b""), digest_of(new)), Buffer(CHUNK))
    assert backing.read_bytes()[:CHUNK] == new


def test_without_base(device: Path, state: Path) -> None:
    with sink_at(device, state, use_base=False) as sink:
        assert list(sink.index()) == [IndexNone(0, 8)]
        with pytest.raises(PeerError):
            sink.put(ChunkUpdate(0, 0, 1, memoryview(b""), b"0" * 32), Buffer(CHUNK))


def test_the_device_is_claimed_meanwhile(device: Path, state: Path) -> None:
    with sink_at(device, state):
        with pytest.raises(OSError, match="busy"):
            os.open(device, os.O_RDONLY | os.O_EXCL)
    os.close(os.open(device, os.O_RDONLY | os.O_EXCL))


class TestRecord:
    def test_it_is_incomplete_until_it_is_committed(self, image: Path, device: Path, state: Path) -> None:
        with open_source(image) as source, sink_at(device, state) as sink:
            send(source, sink, {}, stop=3)
            (found,) = journal.read_all(state)[0]
            assert (found.target, found.kind, found.size, found.done) == (str(device), "device", SIZE, False)
            sink.suspend()
        (found,) = journal.read_all(state)[0]
        assert len(found.durable) == 3
        with sink_at(device, state) as sink:
            assert sink.resumed == 3 * CHUNK
            sink.discard()  # the old content is gone all the same
        assert len(journal.read_all(state)[0]) == 1
        transfer(image, device, state)
        assert journal.read_all(state)[0] == []

    def test_resuming_without_base_keeps_what_was_durable(self, image: Path, device: Path, state: Path) -> None:
        with open_source(image) as source, sink_at(device, state, use_base=False) as sink:
            send(source, sink, {}, stop=3)
            sink.suspend()
        with sink_at(device, state, use_base=False) as sink:
            items = list(sink.index())
        assert isinstance(items[0], IndexLeaves) and items[-1] == IndexNone(3, 5)

    def test_the_same_device_by_another_name(self, image: Path, device: Path, state: Path, tmp_path: Path) -> None:
        with sink_at(device, state) as sink:
            sink.suspend()
        (tmp_path / "lv").symlink_to(device)
        transfer(image, tmp_path / "lv", state)
        assert journal.read_all(state)[0] == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_chunk_that_is_put_while_the_index_reads_it(
    device: Path, state: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sink_at(device, state) as sink:
        real = sink._target.read_base

        def meanwhile(index: int, here: bool, buffer: Buffer) -> int:
            if index == 2 and when == "before":
                put(sink, index, b"n" * CHUNK)
            length = real(index, here, buffer)
            if index == 2 and when == "after":
                put(sink, index, b"n" * CHUNK)
            return length

        monkeypatch.setattr(sink._target, "read_base", meanwhile)
        items = list(sink.index())
    assert items[2] == IndexNone(2, 1)
    assert all(isinstance(item, IndexLeaves) for item in items[:2] + items[3:])


def test_the_index_never_reports_what_was_overwritten(backing: Path, device: Path, state: Path) -> None:
    old = backing.read_bytes()
    chunks = 7
    for attempt in range(3):
        with sink_at(device, state) as sink:
            start = threading.Barrier(2)

            def write(sink: Sink = sink, start: threading.Barrier = start, attempt: int = attempt) -> None:
                start.wait()
                for index in (5, 0, 3, 6, 1, 2, 4)[attempt:]:
                    put(sink, index, os.urandom(CHUNK))

            writer = threading.Thread(target=write)
            writer.start()
            start.wait()
            for item in sink.index():
                if isinstance(item, IndexLeaves) and item.first < chunks:
                    part = old[item.first * CHUNK : (item.first + 1) * CHUNK]
                    assert item.leaves == leaves(memoryview(part), CHUNK)
            writer.join()
            if not attempt:
                assert next(sink.index()) == IndexNone(0, chunks)
        old = backing.read_bytes()
