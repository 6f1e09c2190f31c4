"""Closing and discarding a sink."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.helpers.image_kit import (
    SIZE,
    leftovers,
    put,
    sink_for,
)
from xenplugin.errors import ImageError
from xenplugin.geometry import CHUNK


def test_discard_leaves_the_old_image_and_nothing_else(target: Path) -> None:
    target.write_bytes(b"old")
    with sink_for(target, SIZE) as sink:
        put(sink, 0, b"x" * CHUNK)
        sink.discard()
        sink.discard()
    assert target.read_bytes() == b"old" and leftovers(target.parent) == []
    assert list((target.parent / "state").iterdir()) == []


def test_a_closed_sink_refuses_calls(target: Path) -> None:
    sink = sink_for(target, SIZE)
    index = sink.index()
    sink.suspend()
    sink.suspend()
    sink.close()
    calls: list[Callable[[], object]] = [
        lambda: put(sink, 0, b"x" * CHUNK),
        sink.checkpoint,
        sink.commit,
        lambda: sink.put_zeros(0, 1),
    ]
    for call in calls:
        with pytest.raises(ImageError, match="is closed"):
            call()
    assert list(index) == []


def test_close_waits_for_a_put(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go = threading.Event(), threading.Event()
    real = os.pwritev

    def slow(fd: int, parts: Sequence[memoryview], offset: int) -> int:
        entered.set()
        go.wait(10)
        return real(fd, parts, offset)

    monkeypatch.setattr(os, "pwritev", slow)
    sink = sink_for(target, SIZE)
    worker = threading.Thread(target=put, args=(sink, 0, b"x" * CHUNK))
    worker.start()
    entered.wait(10)
    closer = threading.Thread(target=sink.suspend)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive()
    go.set()
    worker.join()
    closer.join()
    with sink_for(target, SIZE) as sink:
        assert sink.resumed == CHUNK
        sink.discard()
