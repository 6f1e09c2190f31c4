"""Refuse a target that is the source's own disk, on storage that both hosts share: a "copy" would destroy it.

Strategy: the source sends the host-independent names of its disk (image/safety/identity.py), and the far side
compares them with the names of its target before it creates or writes anything. A file has no such name. So beside
each file that the disk is, or lies on, the source creates a marker, an empty file with a random name. That name was
never looked up before, so no cache of a network file system has it as absent, and a new file is on the server when
open() returns. A far side that finds the marker beside its own file has the same folder; whether it is the same
file is decided by the name or the inode number.

A marker exists until the far side has looked for it, about the time that a connection takes to set up, and is
locked meanwhile. Markers left by a crash are removed by a later session, after a day.
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
from xenplugin.image.safety.distinct import written
from xenplugin.image.safety.identity import NAMES, Identity, identify, is_local, is_name, overlap

_MARKER = re.compile(r"\.xenplugin-[0-9a-f]{32}")
_MARKERS = 16
#: Seconds after which a marker that is not locked was left by a session that died.
_OLD = 86400.0
#: How to move a guest whose disks are on shared storage.
_PLAIN = "let plain `xl migrate` move the guest: `xenstore-write /tool/xenplugin/policy/UUID/enabled 0`"
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class _Mark:
    """A marker: the empty file `name` beside the file `file`, which has inode number `inode`."""

    name: str
    file: str
    inode: int

    def beside(self, path: str) -> bool:
        """Return whether `path` (symbolic links resolved) is that file. Raises OSError."""
        folder, name = os.path.split(path)
        try:
            os.lstat(os.path.join(folder, self.name))
        except (FileNotFoundError, NotADirectoryError):
            return False
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == self.inode:
                return True
        return name.casefold() == self.file.casefold()  # for caches that do not have the file yet


@contextmanager
def marked(path: str, *, live: bool, local: bool, notice: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield the description of the disk at `path` for the job; its markers exist inside the `with` block.

    `local`: the far side is on this machine and needs no markers. If a marker cannot be created, a `live` copy is
    refused, and for any other `notice` is called with the reason. Raises RefusedError, ImageError.
    """
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
                text = f"cannot find out whether both hosts share {file}: no file can be created beside it"
                text += f" ({error.strerror})"
                if live:
                    raise RefusedError(text, hint=f"make {os.path.dirname(real)} writable, or {_PLAIN}") from None
                notice(text)
                return []
            marks.append(mark)
            return [f"file {mark.name}"]

        with os_errors("examine", path):
            disk = identify(os.path.realpath(path), token)
        yield {
            "own": list(disk.own),
            "below": list(disk.below),
            "device": disk.device,
            "markers": [[mark.name, mark.file, mark.inode] for mark in marks],
        }


def refuse_shared(description: dict[str, Any], path: str, *, live: bool) -> bool:
    """Raise RefusedError if the target `path`, or a file beside it that would be written as well, is the
    disk that a job describes, or if one lies on the other.

    `description` is what marked() yields at the source. Returns whether enough is known to exclude that the disk is
    shared. Raises PeerError, ImageError.
    """
    source, marks = _parse(description)

    def token(file: str) -> list[str]:
        return [f"file {file}", *(f"file {mark.name}" for mark in marks if mark.beside(file))]

    apart = True
    for each in written(path):
        if each == path or os.path.lexists(each):
            with os_errors("examine", each):
                target = identify(os.path.realpath(each), token)
            if (name := overlap(source, target)) is not None:
                raise _shared(each, name, same=name in source.own and name in target.own, live=live)
            apart &= not (source.device and target.device) or (source.known and target.known)
    return apart


def _shared(path: str, name: str, *, same: bool, live: bool) -> RefusedError:
    text = f"{path} {'is the source disk itself' if same else 'overlaps the source disk'}"
    if is_local(name):
        return RefusedError(text, hint="migrate it to another host" if live else "give another target")
    return RefusedError(f"{text}: both hosts share it ({name})", hint=_PLAIN if live else "give another target")


def unknown(path: str) -> str:
    """Return the warning for an administrator where refuse_shared() returned False."""
    return f"cannot find out whether both hosts share the device {path}; if they do, stop now"


def _parse(description: dict[str, Any]) -> tuple[Identity, list[_Mark]]:
    try:
        own, below, device = description["own"], description["below"], description["device"]
        marks = [_Mark(*each) for each in description["markers"]]
    except (KeyError, TypeError):
        raise PeerError("the job does not describe its disk") from None
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
        raise PeerError("the job's description of its disk is not valid")
    return Identity(tuple(own), tuple(below), device), marks


@contextmanager
def _marker(folder: str) -> Iterator[str]:
    """Create a marker in `folder` and yield its name. Raises OSError."""
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
    """Remove the markers that sessions which died have left in `folder`."""
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
