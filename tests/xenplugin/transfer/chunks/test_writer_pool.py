"""What arrives twice, or arrives while the image is being finished."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from xenplugin.errors import ImageError
from xenplugin.geometry import CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.index.digest import chunk_digest, leaves
from xenplugin.image.target.chunk_update import ChunkUpdate
from xenplugin.image.target.sink import Sink, open_sink
from xenplugin.transfer.chunks.writer_pool import FrameWriter, PoolWorker, WriterPool
from xenplugin.wire.frames import Chunk, Codec, End, Zeros


def chunk(index: int, fill: bytes) -> Chunk:
    content = fill * CHUNK
    return Chunk(index, Codec.STORED, 0xFFFF, 0, chunk_digest(leaves(memoryview(content), CHUNK)), content)


@pytest.fixture
def sink(tmp_path: Path) -> Sink:
    return open_sink(tmp_path / "target", 3 * CHUNK, state_dir=tmp_path, attached=lambda _: None)


def test_a_chunk_that_comes_again_is_not_written_again(sink: Sink, tmp_path: Path) -> None:
    writing = FrameWriter(sink)
    hand = PoolWorker(writing)
    assert hand.write(chunk(0, b"a")) == CHUNK
    assert hand.write(chunk(0, b"a")) == 0
    with pytest.raises(ImageError, match="arrived twice"):
        hand.write(chunk(0, b"b"))
    with pytest.raises(ImageError, match="arrived twice"):
        hand.write(Zeros(0, 1))
    hand.write(Zeros(1, 2))
    hand.write(Zeros(1, 2))
    hand.write(Zeros(2, 1))
    writing.finish(End(writing.digest.root()))
    assert writing.complete
    writing.commit()
    assert (tmp_path / "target").read_bytes() == b"a" * CHUNK + bytes(2 * CHUNK)


@pytest.mark.parametrize("live", [False, True])
def test_zeros_that_come_again_are_not_made_again(sink: Sink, monkeypatch: pytest.MonkeyPatch, live: bool) -> None:
    """On a device it may take minutes to make a run of zeros; a frame that describes it has 37 bytes."""
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(sink, "put_zeros", lambda first, count: made.append((first, count)))
    hand = PoolWorker(FrameWriter(sink, live=live))
    for run in (Zeros(1, 1), Zeros(0, 3), Zeros(0, 3), Zeros(2, 1), Zeros(0, 2)):
        hand.write(run)
    assert made == [(1, 1), (0, 1), (2, 1)]


def test_zeros_never_touch_a_chunk_that_has_data(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    hand = PoolWorker(FrameWriter(sink))
    hand.write(chunk(1, b"a"))
    monkeypatch.setattr(sink, "put_zeros", lambda first, count: made.append((first, count)))
    with pytest.raises(ImageError, match="chunk 1 arrived twice"):
        hand.write(Zeros(0, 3))
    assert made == [(0, 1), (2, 1)]


def test_a_put_that_begins_while_the_image_is_finished_cannot_spoil_it(
    sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = chunk(0, b"a")
    sink.put(ChunkUpdate(0, 0xFFFF, 0, memoryview(good.payload), good.digest), Buffer(CHUNK))
    sink.put_zeros(1, 2)
    began, go = threading.Event(), threading.Event()
    real = sink._target.read

    def slow(index: int, view: memoryview) -> None:
        began.set()
        assert go.wait(10)
        real(index, view)

    monkeypatch.setattr(sink._target, "read", slow)
    bad = good.digest[::-1]
    failed: list[BaseException] = []

    def again() -> None:
        try:
            sink.put(ChunkUpdate(0, 0xFFFF, 0, memoryview(good.payload), bad), Buffer(CHUNK))
        except ImageError as exc:
            failed.append(exc)

    late = threading.Thread(target=again)
    late.start()
    assert began.wait(10)
    releaser = threading.Thread(target=go.set)
    releaser.start()
    with pytest.raises(ImageError, match="1 chunks are missing"):
        sink.commit()
    late.join()
    releaser.join()
    assert failed and not (tmp_path / "target").exists()
    sink.discard()


def test_writers_are_shared_and_returned_after_failures(sink: Sink, tmp_path: Path) -> None:
    writing = FrameWriter(sink)
    hands = WriterPool(writing)
    wrong = chunk(0, b"a")
    for _ in range(2 * hands._free.qsize()):  # one that is not given back after a failure would be missed here
        with pytest.raises(ImageError):
            hands.write(Chunk(0, Codec.ZSTD, 0xFFFF, 0, wrong.digest, b"no zstd"))
    threads = [threading.Thread(target=hands.write, args=(chunk(n, b"%d" % n),)) for n in range(3) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writing.finish(End(writing.digest.root()))
    writing.commit()
    assert (tmp_path / "target").read_bytes() == b"0" * CHUNK + b"1" * CHUNK + b"2" * CHUNK


def test_writing_back_starts_before_suspend_waits(sink: Sink, tmp_path: Path) -> None:
    PoolWorker(FrameWriter(sink)).write(chunk(0, b"a"))
    sink.start_writing()
    sink.suspend()
    sink.start_writing()  # closed by now: nothing
