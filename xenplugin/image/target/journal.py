"""The journal of an incomplete target: which chunks can be trusted after a crash.

Strategy: text lines, appended and fsynced, each with 16 hex digits of the SHA-256 of the rest in front. Reading
stops at the first line whose check fails. A crash leaves a torn last line; lines after a damaged one are ignored,
which costs time but is safe. Chunks are listed as durable only after the fdatasync that made them durable has
returned.

    <check> {"journal": 1, "target": ..., "size": ..., "created": ..., "kind": "file" | ..., "inode": ...}
    <check> {"durable": [first, count, first, count, ...]}      in chunks
    <check> {"done": true}

`kind` is "file", "image" (a file in another format than raw) or "device". `inode` is the inode number of the
partial file, 0 for devices. Nothing in a journal is secret. A device's journal is in the state directory. A file's
journal is beside its partial, with a symbolic link in the state directory (if that is writable), so that `xenplugin
status` finds it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from xenplugin.errors import ImageError, RefusedError
from xenplugin.geometry import MAX_IMAGE, chunk_count
from xenplugin.image.beside import fitting
from xenplugin.image.chunkset import ChunkSet
from xenplugin.image.files import image_error, os_errors, remove, sync_directory, write_atomically
from xenplugin.image.small_file import UnfitFileError, open_regular

VERSION = 1
SUFFIX = ".journal"
_RUNS_PER_LINE = 256
_CHECK = 16
_LATEST = 1 << 36  # seconds of the epoch, beyond any
#: Bytes of the longest line: the header, with a path of 4096 bytes that are six characters each in JSON.
_LONGEST_LINE = 32768
#: Bytes that are read, those of 200 000 runs: a larger journal costs memory. What follows is copied again.
_MOST = 1 << 22


@dataclass
class TargetState:
    """The content of a journal: `size` in bytes, `created` in seconds since the epoch, `durable` in chunks."""

    path: Path
    target: str
    size: int
    created: float
    kind: str
    inode: int
    durable: ChunkSet = field(default_factory=ChunkSet)
    #: Everything was verified and durable; only the rename may be missing.
    done: bool = False
    #: Bytes of valid lines; the rest is cut off before the journal is continued.
    length: int = 0


def _line(record: dict[str, Any]) -> bytes:
    body = json.dumps(record, separators=(",", ":")).encode()
    return hashlib.sha256(body).hexdigest()[:_CHECK].encode() + b" " + body + b"\n"


def _record(line: bytes) -> dict[str, Any] | None:
    body = line[_CHECK + 1 :]
    if hashlib.sha256(body).hexdigest()[:_CHECK].encode() + b" " != line[: _CHECK + 1]:
        return None
    try:
        record = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def read(path: str | os.PathLike[str]) -> TargetState | None:
    """Read the journal at `path`; None if there is none, or none of this version with a complete header.

    Raises RefusedError for anything but a regular file, ImageError if it cannot be read.
    """
    name = os.fspath(path)
    state: TargetState | None = None
    try:
        with open(open_regular(name), "rb") as file:
            while state is None or state.length < _MOST:
                line = file.readline(_LONGEST_LINE)
                record = _record(line[:-1]) if line.endswith(b"\n") else None
                if record is None:
                    break
                if state is None:
                    state = _header(Path(name), record)
                    if state is None:
                        return None
                elif not _apply(state, record):
                    break
                state.length += len(line)
    except FileNotFoundError:
        return None
    except UnfitFileError as error:
        raise RefusedError(
            f"{name} cannot be the journal of a copy: {error.strerror}",
            hint="find out what made it, and remove it",
        ) from None
    except OSError as error:
        raise image_error(error, "read", name) from error
    return state


def _header(path: Path, record: dict[str, Any]) -> TargetState | None:
    match record:
        case {
            "journal": 1,
            "target": str(target),
            "size": int(size),
            "created": int(created) | float(created),
            "kind": "file" | "image" | "device" as kind,
            "inode": int(inode),
        } if 0 <= size <= MAX_IMAGE and 0 <= created < _LATEST:
            return TargetState(path, target, size, float(created), kind, inode)
    return None


def _apply(state: TargetState, record: dict[str, Any]) -> bool:
    if record.get("done") is True:
        state.done = True
        return True
    numbers = record.get("durable")
    if not isinstance(numbers, list) or len(numbers) % 2 or not all(type(n) is int for n in numbers):
        return False
    chunks = chunk_count(state.size)
    for first, count in zip(numbers[::2], numbers[1::2], strict=True):
        if not (first >= 0 and count > 0 and first + count <= chunks):
            return False
        state.durable.add(first, count)
    return True


class Journal:
    """A journal open for appending. Not thread-safe: checkpoints are made one at a time."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def create(
        cls, path: Path, *, target: str, size: int, kind: str, inode: int = 0, durable: ChunkSet | None = None
    ) -> Journal:
        """Write a new journal, atomically replacing an old one. It is durable on return. Raises ImageError."""
        header = {
            "journal": VERSION,
            "target": target,
            "size": size,
            "created": round(time.time(), 3),
            "kind": kind,
            "inode": inode,
        }
        records = [header, *_durable(durable.runs() if durable else ())]
        with os_errors("write the journal", str(path)):
            write_atomically(path, b"".join(map(_line, records)))
            return cls(path, _open(path))

    @classmethod
    def reopen(cls, state: TargetState) -> Journal:
        """Continue the journal that was read as `state`, without invalid lines at its end. Raises ImageError."""
        with os_errors("write the journal", str(state.path)):
            fd = _open(state.path)
            try:
                os.ftruncate(fd, state.length)
                os.fsync(fd)
            except BaseException:
                os.close(fd)
                raise
        return cls(state.path, fd)

    def durable(self, runs: Iterable[tuple[int, int]]) -> None:
        """Note runs (first, count) of chunks that an fdatasync has made durable. Raises ImageError."""
        with os_errors("write the journal", str(self.path)):
            self._append(_durable(runs))

    def done(self) -> None:
        """Note that every chunk of the target is verified and durable. Raises ImageError."""
        with os_errors("write the journal", str(self.path)):
            self._append([{"done": True}])

    def _append(self, records: Iterable[dict[str, Any]]) -> None:
        data = memoryview(b"".join(map(_line, records)))
        if not data:
            return
        good = os.fstat(self._fd).st_size
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            os.fsync(self._fd)
        except OSError:
            # An incomplete line, as on a full disk, would hide all lines after it.
            with suppress(OSError):
                os.ftruncate(self._fd, good)
            raise

    def close(self) -> None:
        """Close the journal and keep its file; may be called more than once."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Close the journal and remove its file, durably. Raises ImageError."""
        self.close()
        with os_errors("remove the journal", str(self.path)):
            remove(str(self.path))
            sync_directory(str(self.path.parent))


def _open(path: Path) -> int:
    return open_regular(path, os.O_WRONLY | os.O_APPEND)


def _durable(runs: Iterable[tuple[int, int]]) -> Iterable[dict[str, Any]]:
    left = iter(runs)
    while some := list(islice(left, _RUNS_PER_LINE)):
        yield {"durable": [number for run in some for number in run]}


def name_in(state_dir: Path, target: str) -> Path:
    """Return the path in `state_dir` of the journal of device `target`, or of the link to that of file `target`."""
    tag = hashlib.sha256(os.fsencode(target)).hexdigest()[:12]
    return state_dir / fitting(os.path.basename(target)[:100], f"-{tag}{SUFFIX}")


def link(state_dir: Path, target: str, journal: Path) -> None:
    """Link a journal from `state_dir`, so that read_all() finds it. Errors are ignored."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = name_in(state_dir, target)
        remove(str(name))
        name.symlink_to(journal)
    except OSError:  # ordinary users who copy files cannot write there; nothing depends on the link
        pass


def unlink(state_dir: Path, target: str) -> None:
    """Remove the link that link() made. Errors are ignored."""
    try:
        name = name_in(state_dir, target)
        if name.is_symlink():
            name.unlink()
    except OSError:
        pass


def read_all(state_dir: Path) -> tuple[list[TargetState], list[tuple[Path, str]]]:
    """Return the journals of all incomplete targets, oldest first, and those that cannot be read, with the reason.

    Dangling links are left out. Raises ImageError if the directory cannot be read.
    """
    states, unreadable = [], []
    for name in _names(state_dir):
        try:
            # Its folder may be another user's: only the link of ours is followed, none of theirs.
            path = os.readlink(name) if name.is_symlink() else name
            if (state := read(path)) is not None:
                states.append(state)
        except (ImageError, RefusedError) as error:
            unreadable.append((Path(path), error.message))
    return sorted(states, key=lambda state: state.created), unreadable


def of_devices(state_dir: Path) -> list[TargetState]:
    """Return the journals of all incomplete devices, oldest first. Raises RefusedError, ImageError if one cannot be
    read."""
    found = [read(name) for name in _names(state_dir) if not name.is_symlink()]
    return sorted((state for state in found if state is not None), key=lambda state: state.created)


def _names(state_dir: Path) -> list[Path]:
    with os_errors("list", str(state_dir)):
        return sorted(state_dir.glob("*" + SUFFIX)) if state_dir.is_dir() else []
