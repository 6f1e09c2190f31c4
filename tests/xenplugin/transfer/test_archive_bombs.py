"""Sealed files by somebody who has the key, made to cost much: the work is in proportion to their bytes."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from xenplugin.codec.seal import FILE_RANDOM, Keys
from xenplugin.config import Config
from xenplugin.errors import XenpluginError
from xenplugin.geometry import BLOCK, CHUNK, CHUNKS_PER_GROUP, MAX_IMAGE
from xenplugin.image.index.digest import ZERO_CHUNK, chunk_digest, leaves
from xenplugin.transfer import archive
from xenplugin.wire.frames import Chunk, Codec, End, Frame, Image, Zeros
from xenplugin.wire.preamble import Carrier, Cipher, Preamble
from xenplugin.wire.session import Writer

GROUP = CHUNKS_PER_GROUP
SIZE = 64 * 1024 * GROUP * CHUNK
SECRET = bytes(32)


def zero(index: int) -> Frame:
    """A chunk that has to be looked at, and turns out to be zeros."""
    return Chunk(index, Codec.STORED, 0, 0, ZERO_CHUNK, b"")


def data(index: int) -> Frame:
    content = bytes((1,)) + bytes(BLOCK - 1)
    whole = leaves(memoryview(content + bytes(CHUNK - BLOCK)), CHUNK, 1)
    return Chunk(index, Codec.STORED, 1, 0, chunk_digest(whole), content)


def one_in_each_group(count: int) -> Iterator[Frame]:
    return (data(number * GROUP + 7) for number in range(count // 20))


def the_same_part_of_a_group(count: int) -> Iterator[Frame]:
    return (Zeros(1, GROUP - 1) for _ in range(count))


def every_other_group_backwards(count: int) -> Iterator[Frame]:
    return (Zeros(2 * number * GROUP, GROUP) for number in reversed(range(count)))


def many_parts_then_long_runs(count: int) -> Iterator[Frame]:
    yield from (zero(2 * number * GROUP) for number in range(count // 2))
    yield from (Zeros(2 * count * GROUP + number, count * GROUP) for number in range(count // 2))


def many_folded_groups_then_long_runs(count: int) -> Iterator[Frame]:
    for number in range(count // 20):
        yield data(number * GROUP)
        yield Zeros(number * GROUP + 1, GROUP - 1)
    yield from (Zeros(1, GROUP - 1 - number % 9) for number in range(count - count // 20))


def scattered(count: int) -> Iterator[Frame]:
    return (zero(number * 7919 % (1 << 30)) for number in range(count))


def verify(path: Path, frames: Iterator[Frame], size: int = SIZE) -> int:
    """Seal `frames` and read them; return how many there were. (They do not describe the whole image.)"""
    preamble = Preamble(Cipher.AES_128_GCM, Carrier.FILE, 0, bytes(16), bytes(32))
    writer = Writer(Keys(SECRET, FILE_RANDOM).forward(preamble))
    count = 0
    with open(path, "wb") as file:
        file.write(preamble.pack())
        for frame in (Image(size), *frames, End(bytes(32))):
            file.write(b"".join(map(bytes, writer.pack(frame))))
            count += 1
    return count


def opened(path: Path) -> XenpluginError:
    with pytest.raises(XenpluginError) as caught:
        archive.unseal(str(path), None, SECRET, Config(), lambda _: None, lambda _: None)
    return caught.value


def lines_run(act: Callable[[], Any]) -> int:
    """Count the lines of Python that `act` runs, those of loops each time."""
    count = 0

    def trace(_frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "bomb",
    [
        one_in_each_group,
        the_same_part_of_a_group,
        every_other_group_backwards,
        many_parts_then_long_runs,
        many_folded_groups_then_long_runs,
        scattered,
    ],
)
def test_a_frame_costs_no_more_for_what_came_before_it(
    bomb: Callable[[int], Iterator[Frame]], tmp_path: Path
) -> None:
    path = tmp_path / "bomb"
    costs = []
    for size in (250, 2000):
        frames = verify(path, bomb(size))
        costs.append(lines_run(lambda: opened(path)) / frames)
    assert costs[1] < 1.5 * costs[0] + 100 and costs[1] < 2500, costs


def test_a_file_of_191_bytes_is_judged_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    verify(path, iter([Zeros(0, MAX_IMAGE // CHUNK)]), MAX_IMAGE)
    assert path.stat().st_size == 191
    errors: list[XenpluginError] = []
    assert lines_run(lambda: errors.append(opened(path))) < 5000
    assert "not the one that was sent" in errors[0].message
    verify(path, iter(()), MAX_IMAGE + 1)
    assert "an image of" in opened(path).message


def test_memory_is_in_proportion_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    verify(path, (zero(number * GROUP + 1023) for number in range(5000)))
    tracemalloc.start()
    opened(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * path.stat().st_size + (4 << 20), peak
