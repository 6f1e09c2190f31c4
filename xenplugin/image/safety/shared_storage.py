"""Is the target the very disk that is to be moved? Hosts often share storage, and there a "copy" would destroy it.

Strategy: the source says what its disk is called from every host (image/safety/identity.py), the far side compares
that with what its target is called, before it makes or writes anything. A file has no name of that kind: so beside
each file that the disk is, or lies on, the source makes a marker, an empty file with a random name. Nobody has ever
looked that name up, so no cache of a network file system knows it as absent; and a new file is on the server when
open() returns. Whoever finds it in the folder of his own file has the same folder; there the name, or the inode
number, decides.

A marker is there until the far side has looked: the time of a connection's set-up. It is locked meanwhile; one that
a crash has left is removed by a later session, after a day.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from xenplugin.errors import PeerError, RefusedError
from xenplugin.image.files import os_errors, remove
from xenplugin.image.safety.identity import NAMES, Identity, identify, is_local, is_name, overlap

_MARKER = re.compile(r"\.xenplugin-[0-9a-f]{32}")
_MARKERS = 16
#: Seconds after which a marker that nobody has locked is of a session that died.
_OLD = 86400.0
#: What such a guest is moved by.
_PLAIN = "have plain `xl migrate` move the guest: `xenstore-write /tool/xenplugin/policy/UUID/enabled 0`"
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class _Mark:
    """A marker `name` is beside the file `file` with inode number `inode`."""

    name: str
    file: str
    inode: int

    def beside(self, path: str) -> bool:
        """Whether `path` (symbolic links resolved) is that file. Raises OSError."""
        folder, name = os.path.split(path)
        try:
            os.lstat(os.path.join(folder, self.name))
        except (FileNotFoundError, NotADirectoryError):
            return False
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == self.inode:
                return True
        return name.casefold() == self.file.casefold()  # also where a cache does not know the file yet


@contextmanager
def marked(path: str, *, live: bool, local: bool, notice: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """What the job says of the disk at `path`; the markers that it names are there meanwhile. `local`: the far side
    is on this machine, which needs none. Where none can be made it is refused if `live`, else the `notice` says so.
    Raises RefusedError, ImageError."""
    marks: list[_Mark] = []
    with ExitStack() as made:

        def token(file: str) -> list[str]:
            if local or len(marks) == _MARKERS:
                return []
            real = os.path.realpath(file)
            try:
                inode = os.stat(real).st_ino
                mark = _Mark(made.enter_context(_marker(os.path.dirname(real))), os.path.basename(real), inode)
            except OSError as error:
                text = f"whether both hosts share {file} cannot be known: no file can be made beside it"
                text += f" ({error.strerror})"
                if live:
                    raise RefusedError(text, hint=f"make {os.path.dirname(real)} writable, or {_PLAIN}") from None
                notice(text)
                return []
            marks.append(mark)
            return [f"file {mark.name}"]

        with os_errors("look at", path):
            disk = identify(os.path.realpath(path), token)
        yield {
            "own": list(disk.own),
            "below": list(disk.below),
            "device": disk.device,
            "markers": [[mark.name, mark.file, mark.inode] for mark in marks],
        }


def refuse_shared(told: dict[str, Any], path: str, *, live: bool) -> bool:
    """Raise RefusedError if the target `path` is the disk that a job has `told` of, or if one lies on the other.
    Returns whether that could be known. Raises PeerError, ImageError."""
    source, marks = _parse(told)

    def token(file: str) -> list[str]:
        return [f"file {file}", *(f"file {mark.name}" for mark in marks if mark.beside(file))]

    with os_errors("look at", path):
        target = identify(os.path.realpath(path), token)
    name = overlap(source, target)
    if name is None:
        return not (source.device and target.device) or (source.known and target.known)
    same = name in source.own and name in target.own
    what = "is the very disk" if same else "lies on the disk, or the disk on it,"
    text = f"{path} {what} that is to be moved"
    if is_local(name):
        raise RefusedError(text, hint="migrate it to another host" if live else "give another target")
    raise RefusedError(f"{text}: both hosts share it ({name})", hint=_PLAIN if live else "give another target")


def unknown(path: str) -> str:
    """What the administrator is told where `refuse_shared` could not know."""
    return f"{path}: nothing here tells whether both hosts share this device; if they do, stop now"


def _parse(told: dict[str, Any]) -> tuple[Identity, list[_Mark]]:
    try:
        own, below, device = told["own"], told["below"], told["device"]
        marks = [_Mark(*each) for each in told["markers"]]
    except (KeyError, TypeError):
        raise PeerError("a job that does not say which disk it is about") from None
    names = [*own, *below] if type(own) is type(below) is list else [None]
    if (
        type(device) is not bool
        or len(names) > NAMES
        or len(marks) > _MARKERS
        or not all(type(name) is str and is_name(name) for name in names)
        or not all(
            type(mark.name) is type(mark.file) is str and type(mark.inode) is int and _MARKER.fullmatch(mark.name)
            for mark in marks
        )
    ):
        raise PeerError("a job whose disk makes no sense")
    return Identity(tuple(own), tuple(below), device), marks


@contextmanager
def _marker(folder: str) -> Iterator[str]:
    """A new marker in `folder`: its name. Raises OSError."""
    _sweep(folder)
    name = f".xenplugin-{secrets.token_hex(16)}"
    path = os.path.join(folder, name)
    fd = os.open(path, _CREATE, 0o600)
    try:
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield name
    finally:
        with suppress(OSError):
            remove(path)
        os.close(fd)


def _sweep(folder: str) -> None:
    """Remove what sessions that died have left in `folder`."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _MARKER.fullmatch(entry.name):
                with suppress(OSError):
                    _remove_old(entry.path)


def _remove_old(path: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        empty = stat.S_ISREG(status.st_mode) and not status.st_size
        if empty and time.time() - status.st_mtime > _OLD:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(path)
    finally:
        os.close(fd)
