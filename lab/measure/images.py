"""The disks that are moved: file systems of this machine's own /usr, made once, the same for every way."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.errors import BuildError

_LARGEST = 8  # no file takes more than this part of the data


def cache() -> Path:
    """Where disks and memories are kept between runs."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "xenplugin" / "experiment"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Image:
    """`size`: of the disk, `data`: what of it is no hole (files, and what the file system needs), bytes."""

    path: Path
    size: int
    data: int
    sha256: str


def obtain(virtual: int, data: int, say: Callable[[str], None]) -> Image:
    """A sparse ext4 image of `virtual` bytes holding about `data` bytes of /usr. Raises BuildError."""
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
        _take(Path("/usr"), tree, data)
        partial.unlink(missing_ok=True)
        # Inode tables as mkfs leaves them to the kernel: mostly holes.
        words = ["mkfs.ext4", "-q", "-E", "lazy_itable_init=1", "-d", str(tree), str(partial)]
        env = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
        size = f"{virtual // 1024}k"
        done = subprocess.run([*words, size], capture_output=True, text=True, env=env, check=False)
        if done.returncode:
            raise BuildError(f"mkfs.ext4: {done.stderr.strip()}")
        partial.rename(path)
    except OSError as error:
        raise BuildError(f"the disk cannot be made: {error}", hint="apt install e2fsprogs") from error
    finally:
        shutil.rmtree(tree, ignore_errors=True)
        partial.unlink(missing_ok=True)


def _take(top: Path, tree: Path, budget: int) -> None:
    """Files of `top` into `tree`, in the order of a hash of their paths, until `budget` bytes."""
    files = [Path(folder, name) for folder, _, names in os.walk(top) for name in names]
    files = [path for path in files if path.is_file() and not path.is_symlink()]
    files.sort(key=lambda path: hashlib.sha256(os.fsencode(path)).digest())
    largest = budget // _LARGEST
    for path in files:
        size = path.stat().st_size
        if size > largest:
            continue
        target = tree / path.relative_to(top)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        budget -= max(4096, size)
        if budget <= 0:
            return


def extents(path: Path) -> Iterator[tuple[int, int]]:
    """(start, stop) of each run of data in a file."""
    with path.open("rb") as file:
        stop = 0
        while True:
            try:
                start = os.lseek(file.fileno(), stop, os.SEEK_DATA)
            except OSError:
                return
            stop = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield start, stop


def sha256(path: Path) -> str:
    """Of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def warm(path: Path) -> None:
    """Have its data in the page cache, as all ways find it."""
    with path.open("rb", buffering=0) as file:
        for start, stop in extents(path):
            for offset in range(start, stop, 1 << 20):
                os.pread(file.fileno(), min(1 << 20, stop - offset), offset)
