"""Putting chunks: each is verified, may come again, and may come from any thread."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers.image_kit import (
    allocated,
    digest_of,
    packed,
    put,
    sink_for,
)
from tests.helpers.threads import at_once
from xenplugin.errors import ImageError
from xenplugin.geometry import BLOCK, CHUNK
from xenplugin.image.buffers import Buffer
from xenplugin.image.target.chunk_update import ChunkUpdate


def test_content_that_is_not_what_was_sent(target: Path) -> None:
    with sink_for(target, CHUNK) as sink:
        content = b"x" * CHUNK
        with pytest.raises(ImageError, match="not what was sent"):
            sink.put(ChunkUpdate(0, 0xFFFF, 0, memoryview(content), digest_of(b"y" * CHUNK)), Buffer(CHUNK))
        assert sink.missing() == 1
        put(sink, 0, content)
        sink.commit()
    assert target.read_bytes() == content


def test_a_disk_that_does_not_keep_what_it_got(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev

    def lying(fd: int, parts: Sequence[memoryview], offset: int) -> int:
        flipped = bytearray(b"".join(parts))
        flipped[123] ^= 1
        return real(fd, [flipped], offset)

    monkeypatch.setattr(os, "pwritev", lying)
    with sink_for(target, CHUNK) as sink:
        with pytest.raises(ImageError, match="not what was sent"):
            put(sink, 0, b"x" * CHUNK)
        sink.discard()


def test_a_chunk_put_again_may_differ(target: Path) -> None:
    with sink_for(target, 2 * CHUNK) as sink:
        put(sink, 0, b"x" * CHUNK)
        content = b"y" * BLOCK + bytes(CHUNK - BLOCK)
        sink.put(ChunkUpdate(0, 1, 0, packed(content, 1), digest_of(content)), Buffer(CHUNK))
        put(sink, 1, b"x" * CHUNK)
        sink.put_zeros(1, 1)
        sink.commit()
    assert target.read_bytes() == b"y" * BLOCK + bytes(2 * CHUNK - BLOCK)
    assert allocated(target) == BLOCK


def test_a_failed_second_put_undoes_the_first(target: Path) -> None:
    with sink_for(target, CHUNK) as sink:
        put(sink, 0, b"x" * CHUNK)
        with pytest.raises(ImageError):
            sink.put(ChunkUpdate(0, 0, 0, memoryview(b""), b"0" * 32), Buffer(CHUNK))
        with pytest.raises(ImageError, match="missing"):
            sink.commit()
        sink.suspend()
    assert not target.exists()


def test_a_failed_second_put_is_not_durable(target: Path) -> None:
    with sink_for(target, 2 * CHUNK) as sink:
        put(sink, 0, b"x" * CHUNK)
        put(sink, 1, b"x" * CHUNK)
        with pytest.raises(ImageError):
            sink.put(ChunkUpdate(0, 0, 0, memoryview(b""), b"0" * 32), Buffer(CHUNK))
        sink.suspend()
    with sink_for(target, 2 * CHUNK) as sink:
        assert [item.first for item in sink.index()] == [0, 1] and sink.resumed == CHUNK


def test_short_writes_are_continued(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, sizes = os.pwritev, itertools.cycle((1, 70_000, 4096, 500_000))

    def short(fd: int, parts: Sequence[memoryview], offset: int) -> int:
        return real(fd, [b"".join(parts)[: next(sizes)]], offset)

    monkeypatch.setattr(os, "pwritev", short)
    content = os.urandom(CHUNK // 2)
    old = os.urandom(CHUNK // 2)
    target.write_bytes(old + old)
    mixed = content[:BLOCK] + old[BLOCK : 2 * BLOCK] + content[2 * BLOCK :] + old
    with sink_for(target, CHUNK) as sink:
        payload = mixed[:BLOCK] + mixed[2 * BLOCK : CHUNK // 2]
        sink.put(ChunkUpdate(0, 0x00FD, 0xFF02, memoryview(payload), digest_of(mixed)), Buffer(CHUNK))
        sink.commit()
    assert target.read_bytes() == mixed


def test_many_threads_can_put(target: Path) -> None:
    chunks = [os.urandom(CHUNK) if i % 3 else bytes(CHUNK) for i in range(32)]
    order = iter(range(31, -1, -1))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                index = next(order, None)
            if index is None:
                return
            put(sink, index, chunks[index])
            if index % 8 == 0:
                sink.checkpoint()

    with sink_for(target, 32 * CHUNK) as sink:
        assert at_once(work, 4) == []
        sink.commit()
    assert target.read_bytes() == b"".join(chunks)


def test_two_threads_write_one_chunk_one_after_the_other(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, inside, most = os.pwritev, [0], [0]

    def slow(fd: int, parts: Sequence[memoryview], offset: int) -> int:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        inside[0] -= 1
        return real(fd, parts, offset)

    monkeypatch.setattr(os, "pwritev", slow)
    contents = [bytes([i]) * CHUNK for i in range(4)]
    with sink_for(target, CHUNK) as sink:
        threads = [threading.Thread(target=put, args=(sink, 0, content)) for content in contents]
        threads.append(threading.Thread(target=sink.put_zeros, args=(0, 1)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sink.commit()
    assert most == [1] and target.read_bytes() in [bytes(CHUNK), *contents]
