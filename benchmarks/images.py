"""The images that are moved: file systems of this machine's own /usr, made once and cached."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks import ballast

GIB = 1 << 30
BLOCK = 64 << 10


def cache() -> Path:
    """Where images are kept between runs."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "xenplugin" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def image(virtual: int, data: int) -> Path:
    """A sparse ext4 image of `virtual` bytes holding about `data` bytes of /usr."""
    path = cache() / f"usr-{virtual // GIB}g-{data // 10**6}m.img"
    if path.exists():
        return path
    tree, partial = path.with_suffix(".tree"), path.with_suffix(".part")
    shutil.rmtree(tree, ignore_errors=True)
    try:
        _take(Path("/usr"), tree, data)
        partial.unlink(missing_ok=True)
        size = f"{virtual // 1024}k"
        words = ["mkfs.ext4", "-q", "-E", "lazy_itable_init=1", "-d", str(tree), str(partial), size]
        search = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        subprocess.run(words, check=True, env={**os.environ, "PATH": search})
        partial.rename(path)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
        partial.unlink(missing_ok=True)
    return path


def stretched(path: Path, virtual: int) -> Path:
    """The same content in a sparse image of `virtual` bytes."""
    wide = cache() / f"{path.stem}-in-{virtual // GIB}g.img"
    if not wide.exists():
        subprocess.run(["cp", "--sparse=always", str(path), str(wide)], check=True)
        os.truncate(wide, virtual)
    return wide


def changed_blocks(path: Path, share: float, size: int) -> list[int]:
    """Offsets of a random `share` of the image's data blocks of `size` bytes (the same each time)."""
    blocks = list(data_blocks(path, size))
    return sorted(random.Random(7).sample(blocks, int(len(blocks) * share)))


def old_copy(path: Path, target: Path, offsets: list[int], size: int) -> None:
    """`target` becomes `path` as it was before the blocks at `offsets` changed."""
    subprocess.run(["cp", "--sparse=always", str(path), str(target)], check=True)
    chance = random.Random(8)
    with target.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            file.write(chance.randbytes(size))


def data_blocks(path: Path, size: int) -> Iterator[int]:
    """Offsets of the blocks of `size` bytes that lie in the file's data."""
    with path.open("rb") as file:
        for start, stop in _data(file.fileno()):
            yield from range(-(-start // size) * size, stop - size + 1, size)


def sha256(path: Path) -> str:
    """Plain SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def warm(path: Path) -> None:
    """Have the file's data in the page cache, and free memory that this machine really has (ballast.py)."""
    with path.open("rb", buffering=0) as file:
        for start, stop in _data(file.fileno()):
            for offset in range(start, stop, 1 << 20):
                os.pread(file.fileno(), min(1 << 20, stop - offset), offset)
    ballast.touch()


def _data(fd: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each run of data in an open file."""
    stop = 0
    while True:
        try:
            start = os.lseek(fd, stop, os.SEEK_DATA)
        except OSError:
            return
        stop = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, stop


def _take(top: Path, tree: Path, budget: int) -> None:
    """Files of `top` into `tree`, in a fixed shuffled order, until `budget` bytes."""
    files = [
        Path(folder) / name
        for folder, _, names in os.walk(top)
        for name in names
        if not (Path(folder) / name).is_symlink()
    ]
    files.sort(key=lambda p: hashlib.md5(os.fsencode(p)).digest())
    for path in files:
        info = path.stat()
        if info.st_size > budget // 8:
            continue
        target = tree / path.relative_to(top)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        budget -= max(4096, info.st_size)
        if budget <= 0:
            return
