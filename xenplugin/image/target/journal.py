"""The journal of a target that is not complete: what of it can be trusted after a crash.

Strategy: text lines, appended and fsynced, each led by 16 hex digits of the SHA-256 of the rest. Reading stops
at the first line that does not check: a torn last line is what a crash leaves, and whatever follows a damaged
line is not needed to be safe, only to be fast. Chunks are named durable only after the fdatasync that made them
so has returned.

    <check> {"journal": 1, "target": ..., "size": ..., "created": ..., "kind": "file" | "device", "inode": ...}
    <check> {"durable": [first, count, first, count, ...]}      in chunks
    <check> {"done": true}

`inode` ties the journal to its partial file: 0 for devices. There is nothing secret in it. A device's journal
lives in the state directory; a file's lives beside its partial, with a symbolic link in the state directory
(where that can be written) for `xenplugin status` to find.
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

from xenplugin.geometry import MAX_IMAGE, chunk_count
from xenplugin.image.chunkset import ChunkSet
from xenplugin.image.files import image_error, os_errors, remove, sync_directory, write_atomically

VERSION = 1
SUFFIX = ".journal"
_RUNS_PER_LINE = 256
_CHECK = 16


@dataclass
class TargetState:
    """What a journal says. `size` in bytes, `created` in seconds of the epoch, `durable` in chunks."""

    path: Path
    target: str
    size: int
    created: float
    kind: str
    inode: int
    durable: ChunkSet = field(default_factory=ChunkSet)
    #: Everything was verified and durable: what is missing, if the target is not there, is the rename.
    done: bool = False
    #: Bytes of the journal that check; anything after them is dropped before it is continued.
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
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def read(path: str | os.PathLike[str]) -> TargetState | None:
    """What the journal at `path` says; None if there is none, or none of this version with a whole header.

    Raises ImageError if it is there and cannot be read.
    """
    name = os.fspath(path)
    state: TargetState | None = None
    try:
        with open(name, "rb") as file:
            for line in file:
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
            "kind": "file" | "device" as kind,
            "inode": int(inode),
        } if 0 <= size <= MAX_IMAGE:
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
        """Write a new journal (over an old one, at once) that is durable, its name too, on return."""
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
        """Continue the journal that was read as `state`; what did not check is cut off."""
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
        """Note runs (first, count) of chunks that a finished fdatasync made durable. Raises ImageError."""
        with os_errors("write the journal", str(self.path)):
            self._append(_durable(runs))

    def done(self) -> None:
        """Note that the target is complete. Raises ImageError."""
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
            # Half a line (the disk is full) would hide all lines after it.
            with suppress(OSError):
                os.ftruncate(self._fd, good)
            raise

    def close(self) -> None:
        """Close it; it stays where it is. More than once does no harm."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def remove(self) -> None:
        """Close it and remove it, durably. Raises ImageError."""
        self.close()
        with os_errors("remove the journal", str(self.path)):
            remove(str(self.path))
            sync_directory(str(self.path.parent))


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)


def _durable(runs: Iterable[tuple[int, int]]) -> Iterable[dict[str, Any]]:
    left = iter(runs)
    while some := list(islice(left, _RUNS_PER_LINE)):
        yield {"durable": [number for run in some for number in run]}


def name_in(state_dir: Path, target: str) -> Path:
    """Where in `state_dir` the journal of device `target`, or the link to that of file `target`, is."""
    tag = hashlib.sha256(os.fsencode(target)).hexdigest()[:12]
    return state_dir / f"{os.path.basename(target)[:100]}-{tag}{SUFFIX}"


def link(state_dir: Path, target: str, journal: Path) -> None:
    """Let list_journals() find a journal that is elsewhere, as far as `state_dir` can be written."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = name_in(state_dir, target)
        remove(str(name))
        name.symlink_to(journal)
    except OSError:  # an ordinary user copying files: nothing depends on it
        pass


def unlink(state_dir: Path, target: str) -> None:
    """Remove what link() made."""
    try:
        name = name_in(state_dir, target)
        if name.is_symlink():
            name.unlink()
    except OSError:
        pass


def list_journals(state_dir: Path, *, files: bool = True) -> list[TargetState]:
    """The journals of all targets that are not complete, oldest first; dangling links are left out.

    `files`: also those of files, which are links to journals beside the files, anywhere. Raises ImageError if
    one cannot be read.
    """
    with os_errors("look into", str(state_dir)):
        names = sorted(state_dir.glob("*" + SUFFIX)) if state_dir.is_dir() else []
        names = [name for name in names if files or (name.is_file() and not name.is_symlink())]
    states = [state for name in names if (state := read(name)) is not None]
    return sorted(states, key=lambda state: state.created)
