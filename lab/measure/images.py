"""Disk images to move: ext4 file systems with files of this machine's /usr, made once and kept in a cache.

All ways, and all runs on one machine, move the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import sparse
from lab.cache import cache_folder
from lab.errors import BuildError, MissingError
from lab.hosts.image import ext4

#: A file larger than this part of the data is left out.
_LARGEST = 8
_PIECE = 1 << 20


def cache() -> Path:
    """Return the folder where images and memories are kept between runs, made if needed."""
    folder = cache_folder() / "experiment"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Image:
    """A disk image: `size` of the disk and `data` outside its holes (files and the file system's own), in bytes."""

    path: Path
    size: int
    data: int
    sha256: str


def obtain(virtual: int, data: int, say: Callable[[str], None]) -> Image:
    """Return a sparse ext4 image of `virtual` bytes with about `data` bytes of files. Raises BuildError."""
    path = cache() / f"disk-{virtual >> 20}m-{data // 10**6}m.img"
    note = path.with_suffix(".sha256")
    if not note.exists():
        say(f"making a disk of {virtual >> 20} MiB with {data // 10**6} MB of files: once")
        _build(path, virtual, data)
        note.write_text(sha256(path), encoding="ascii")
    return Image(path, virtual, path.stat().st_blocks * 512, note.read_text(encoding="ascii"))


def _build(path: Path, virtual: int, data: int) -> None:
    tree, partial = path.with_suffix(".tree"), path.with_suffix(".part")
    shutil.rmtree(tree, ignore_errors=True)
    try:
        copy_files(Path("/usr"), tree, data, data // _LARGEST)
        # Lazy inode tables are left to the kernel, so they stay mostly holes.
        ext4.make(tree, partial, size=virtual, options=["-E", "lazy_itable_init=1"])
        partial.rename(path)
    except MissingError as error:
        raise BuildError(f"the disk image cannot be made: {error}", hint=error.hint) from error
    except OSError as error:
        raise BuildError(f"the disk image cannot be made: {error}") from error
    finally:
        shutil.rmtree(tree, ignore_errors=True)
        partial.unlink(missing_ok=True)


def copy_files(top: Path, tree: Path, budget: int, largest: int) -> None:
    """Copy files of `top`, none above `largest` bytes, to `tree` until they take about `budget` bytes.

    Files are taken in the order of a hash of their paths, so every part of `top` is represented. Unreadable files
    are left out.
    """
    files = [Path(folder, name) for folder, _, names in os.walk(top) for name in names]
    files = [path for path in files if path.is_file() and not path.is_symlink()]
    files.sort(key=lambda path: hashlib.sha256(os.fsencode(path)).digest())
    for path in files:
        target = tree / path.relative_to(top)
        try:
            size = path.stat().st_size
            if size > largest:
                continue
            with path.open("rb"):
                target.parent.mkdir(parents=True, exist_ok=True)
        except (PermissionError, FileNotFoundError):
            continue
        shutil.copyfile(path, target)
        budget -= max(4096, size)
        if budget <= 0:
            return


def extents(path: Path) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) in bytes of each run of data of a file."""
    with path.open("rb") as file:
        yield from sparse.extents(file.fileno())


def sha256(path: Path) -> str:
    """Return the SHA-256 of a whole file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def warm(path: Path) -> None:
    """Read a file's data into the page cache, so that every way finds it there."""
    with path.open("rb", buffering=0) as file:
        for start, stop in extents(path):
            for offset in range(start, stop, _PIECE):
                os.pread(file.fileno(), min(_PIECE, stop - offset), offset)
