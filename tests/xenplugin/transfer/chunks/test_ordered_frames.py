"""Frames of many packers in the order of the chunks."""

from __future__ import annotations

import random
import threading

import pytest

from tests.helpers.program import wait_until
from xenplugin.transfer.chunks import ordered_frames
from xenplugin.transfer.chunks.ordered_frames import OrderedFrames
from xenplugin.wire.frames import Chunk, Codec, Zeros


def chunk(index: int) -> Chunk:
    return Chunk(index, Codec.STORED, 0, 0, bytes(32), b"", 0)


FRAMES: list[Chunk | Zeros] = [chunk(0), Zeros(1, 5), chunk(6), chunk(7), Zeros(8, 1), chunk(9)]


@pytest.mark.parametrize("seed", range(20))
def test_frames_come_in_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered_frames, "_HELD", 100)
    written: list[Chunk | Zeros] = []
    order = OrderedFrames(written.append)
    for frame in random.Random(seed).sample(FRAMES, len(FRAMES)):
        order.put(frame)
    assert written == FRAMES


def test_only_a_few_wait_and_closing_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered_frames, "_HELD", 2)
    written: list[Chunk | Zeros] = []
    order = OrderedFrames(written.append)
    order.put(FRAMES[5])
    order.put(FRAMES[4])
    late = threading.Thread(target=order.put, args=(FRAMES[3],), daemon=True)
    late.start()
    late.join(0.2)
    assert late.is_alive() and not written
    order.put(FRAMES[0])  # its turn: never waits
    assert written == FRAMES[:1] and late.is_alive()
    order.close()
    wait_until(lambda: not late.is_alive(), "its end")
    assert written == FRAMES[:1]


def test_an_error_of_writing_is_raised_where_the_frame_came() -> None:
    def fail(frame: Chunk | Zeros) -> None:
        raise ValueError(frame)

    with pytest.raises(ValueError):
        OrderedFrames(fail).put(FRAMES[0])
