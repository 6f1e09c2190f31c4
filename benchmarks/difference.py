"""Bytes on the wire for an old copy at the destination, 1 % of whose data blocks have changed since.

The block of a difference is 64 KiB, so that is what "1 % of the blocks" means. A second case has changes of 4 KiB,
each of which makes a whole block travel. The far side is treated as one behind a link, since a copy on one machine
is not compressed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.setting import FAR, Setting, copy
from lab.hosts.image import ext4
from lab.measure import images
from lab.measure.benchmark import Benchmark, Case, Detail, Target, Trials, median
from xenplugin.codec.compress import Packer

_BLOCK = 64 << 10
_LEVEL = 3
#: Size of a change in bytes, and the share of all blocks of that size that change.
_CHANGES = ((_BLOCK, 0.01), (4096, 0.0005))


def benchmark(setting: Setting) -> Benchmark:
    """Return the benchmark."""
    image, target = setting.image, setting.arrived
    data = sum(1 for _ in _data_blocks(image.path, _BLOCK)) * _BLOCK
    cases, targets = [], []
    for size, share in _CHANGES:
        offsets = _changed_blocks(image.path, share, size)
        touched = sorted({offset // _BLOCK * _BLOCK for offset in offsets})
        floor = _packed(image.path, touched) + data // 200

        def work(floor: int = floor) -> Detail:
            return {**copy(["-s", "", str(image.path), f"{FAR}:{target}"]), "floor": floor}

        name = f"{len(offsets)} x {size // 1024} KiB"
        prepare = partial(_old_copy, image.path, target, offsets, size)
        cases.append(Case(name, image, work, target, prepare))
        figure = f"wire bytes, {name} changed, over compressed blocks + 0.5 % of data"
        targets.append(Target(figure, partial(_over_floor, name), 1.1))
    return Benchmark("difference", {"image": image.path.name}, cases, targets)


def _over_floor(name: str, trials: Trials) -> float:
    return median(trials[name], lambda trial: trial.detail["bytes_wire"] / trial.detail["floor"])


def _changed_blocks(path: Path, share: float, size: int) -> list[int]:
    """Return the offsets of a random `share` of the image's data blocks of `size` bytes, the same each time."""
    blocks = list(_data_blocks(path, size))
    return sorted(random.Random(7).sample(blocks, int(len(blocks) * share)))


def _old_copy(path: Path, target: Path, offsets: Sequence[int], size: int) -> None:
    """Make `target` a copy of `path` from before the blocks at `offsets` changed."""
    ext4.copy_sparse(path, target)
    noise = random.Random(8)
    with target.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            file.write(noise.randbytes(size))


def _data_blocks(path: Path, size: int) -> Iterator[int]:
    """Yield the offsets of the blocks of `size` bytes that lie in the file's data."""
    for start, stop in images.extents(path):
        yield from range(-(-start // size) * size, stop - size + 1, size)


def _packed(path: Path, offsets: Sequence[int]) -> int:
    """Return the bytes of the blocks at `offsets`, each compressed by itself."""
    packer, total = Packer(), 0
    with path.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            total += len(packer.pack(file.read(_BLOCK), _LEVEL)[1])
    return total
