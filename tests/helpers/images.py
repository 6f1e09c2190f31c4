"""Small images: sparse, with noise, text and zeros, and parts that do not end at a chunk."""

from __future__ import annotations

import os
import random
from pathlib import Path

MIB = 1 << 20
#: Sets up a loop device. One at a time: of two that pick the same free one, the second has it open for a moment
#: after the first has it, and a device that another process has open is refused.
LOSETUP = ["flock", "/dev/loop-control", "losetup", "--find", "--show"]


def attached(device: Path, folder: Path) -> bool:
    """Return whether the loop device has a file below `folder`, removed or not."""
    try:
        text = Path(f"/sys/block/{device.name}/loop/backing_file").read_text(errors="surrogateescape")
    except OSError:
        return False
    return text.startswith(f"{folder}/")


def noise(seed: int, count: int) -> bytes:
    return random.Random(seed).randbytes(count)


def make_image(path: Path, seed: int = 1, data: int = 4, size: int | None = None) -> Path:
    """Create an image at `path` with `data` MiB of noise, some text, written zeros and holes.

    By default it is a little more than three times as large as its data, so that its last chunk is short.
    """
    size = size if size is not None else 3 * data * MIB + 4096
    with open(path, "wb") as file:
        file.truncate(size)
        for place in range(data):
            offset = (3 * place + seed % 2) * MIB
            if offset + MIB <= size:
                file.seek(offset)
                file.write(noise(seed * 1000 + place, MIB))
        if size > 3 * MIB:
            file.seek(2 * MIB + 70000)
            file.write(b"the quick brown fox\n" * 5000)
            file.seek(size - 4000)
            file.write(b"the end")
            file.write(bytes(3000))
    return path


def dense_image(path: Path, count: int, seed: int = 1) -> Path:
    """Create an image of `count` MiB of noise."""
    with open(path, "wb") as file:
        for place in range(count):
            file.write(noise(seed * 1000 + place, MIB))
    return path


def content(path: Path) -> bytes:
    return path.read_bytes()


def names_in(folder: Path) -> set[str]:
    """Return the names in `folder`, including hidden ones."""
    return set(os.listdir(folder))
