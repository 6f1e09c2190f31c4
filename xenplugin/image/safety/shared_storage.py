"""Recognise a disk on storage that both hosts share: as a target it is refused, because a "copy" would destroy it,
and a guest's disk that is proved to be the same on both hosts stays where it is.

Strategy: the source sends the host-independent names of its disk (image/safety/identity.py), and the far side
compares them with the names of its target before it creates or writes anything. A file has no such name. So beside
each file that the disk is, or lies on, the source creates a marker, an empty file with a random name. That name was
never looked up before, so no cache of a network file system has it as absent, and a new file is on the server when
open() returns. A far side that finds the marker beside its own file has the same folder; whether it is the same
file is decided by the name or the inode number.

To refuse, one equal name is enough. To leave a guest's disk where it is (Sharing.SAME) more is asked, because the
guest will run on what is found: both hosts have the file on a network or cluster file system of one family, where
inode numbers are the same on every host (image/safety/cluster_files.py); the marker and the disk have the inode
numbers there that they have here; and nothing else is mounted over the file. What only seems to be the same is
refused, and so is a block device, whose names a clone may have as well: the administrator says what is shared
(`declared`).

A marker exists until the far side has looked for it, about the time that a connection takes to set up, and is
locked meanwhile. Markers left by a crash are not: the next session in that folder removes them. On a network file
system, whose locks other hosts may not see, it does so after a day.
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
from dataclasses import astuple, dataclass
from enum import Enum, auto
from typing import Any

from xenplugin.errors import PeerError, RefusedError
from xenplugin.image.files import os_errors, remove
from xenplugin.image.safety.cluster_files import family
from xenplugin.image.safety.distinct import written
from xenplugin.image.safety.identity import NAMES, Identity, identify, is_local, is_name, overlap

_MARKER = re.compile(r"\.xenplugin-[0-9a-f]{32}")
_MARKERS = 16
#: Seconds after which a marker on a network file system that is not locked was left by a session that died.
_OLD = 86400.0
#: What to do about a guest's disk that may be shared.
_NAME_IT = "if both hosts share the disk, name it in xenplugin.conf of both, and it stays: shared ="
_ELSEWHERE = "set `paths` in xenplugin.conf of the host that receives it to another place"
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Sharing(Enum):
    """What is known of a disk and a target on another host: they are APART; that cannot be known (UNSURE); they are
    the SAME file."""

    APART = auto()
    UNSURE = auto()
    SAME = auto()


@dataclass(frozen=True)
class _Mark:
    """A marker: the empty file `name` beside the file `file`, which has inode number `inode`. `own`: the inode
    number of the marker; `family`: that of the file's file system."""

    name: str
    file: str
    inode: int
    own: int
    family: str

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

    def proves(self, path: str) -> bool:
        """Return whether `path` (symbolic links resolved) is that file beyond doubt."""
        folder = os.path.dirname(path)
        with suppress(OSError):
            marker, file, beside = os.lstat(os.path.join(folder, self.name)), os.stat(path), os.stat(folder)
            return (
                self.family != ""
                and self.family == family(path)
                and (marker.st_ino, file.st_ino) == (self.own, self.inode)
                and marker.st_dev == file.st_dev == beside.st_dev  # else something is mounted over it
            )
        return False


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
                inode, kind = os.stat(real).st_ino, family(real)
                name, own = made.enter_context(_marker(os.path.dirname(real)))
                mark = _Mark(name, os.path.basename(real), inode, own, kind)
            except OSError as error:
                text = f"cannot find out whether both hosts share {file}: no file can be created beside it"
                text += f" ({error.strerror})"
                if live:
                    hint = f'make {os.path.dirname(real)} writable, or, {_NAME_IT} ["{file}"]'
                    raise RefusedError(text, hint=hint) from None
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
            "markers": [list(astuple(mark)) for mark in marks],
        }


def refuse_shared(description: dict[str, Any], path: str, *, live: bool) -> bool:
    """Raise RefusedError if the target `path`, or a file beside it that would be written as well, is the
    disk that a job describes, or if one lies on the other.

    `description` is what marked() yields at the source. Returns whether enough is known to exclude that the disk is
    shared. Raises PeerError, ImageError.
    """
    sharing = compare(description, path, live=live)
    if sharing is Sharing.SAME:
        raise RefusedError(f"{path} is the source disk itself: both hosts share it", hint=f'{_NAME_IT} ["{path}"]')
    return sharing is Sharing.APART


def compare(description: dict[str, Any], path: str, *, live: bool) -> Sharing:
    """Return what is known of the disk that `description` is of and the target `path`. Raises RefusedError if they
    overlap, or seem to, and are not proved to be the same; PeerError, ImageError."""
    source, marks = _parse(description)

    def token(file: str) -> list[str]:
        return [f"file {file}", *(f"file {mark.name}" for mark in marks if mark.beside(file))]

    apart = True
    for each in written(path):
        if each == path or os.path.lexists(each):
            real = os.path.realpath(each)
            with os_errors("examine", each):
                target = identify(real, token)
            if (name := overlap(source, target)) is not None:
                itself = f"file {marks[0].name}" if marks and not source.device else None
                if live and each == path and name == itself and marks[0].proves(real):
                    return Sharing.SAME
                raise _shared(each, name, same=name in source.own and name in target.own, live=live)
            apart &= not (source.device and target.device) or (source.known and target.known)
    return Sharing.APART if apart else Sharing.UNSURE


def refuse_declared(description: dict[str, Any], path: str, size: int) -> None:
    """Raise RefusedError if `path` cannot be the disk of `size` bytes that `description` is of, although the
    administrators of both hosts have declared it as shared; PeerError, ImageError."""
    source, marks = _parse(description)
    real = os.path.realpath(path)
    if not os.path.exists(real):
        raise RefusedError(f"{path} is declared as shared, and is not there", hint="mount it, or attach it")
    with os_errors("examine", path):
        target = identify(real, lambda file: [])
        here = _size(real)
    beside = [mark.beside(real) for mark in marks]
    why = ""
    if source.device != target.device:
        why = "one of them is a file, the other a block device"
    elif not source.device and marks and not beside[0]:
        why = "a file that was made beside it is not beside this one"
    elif name := _contradiction(source, target):
        why = f"this one is {name}"
    elif source.device and here != size:
        why = f"this one has {here} bytes instead of {size}"
    if why:
        raise RefusedError(
            f"{path} is declared as shared, and is another disk than the guest's: {why}",
            hint="take it out of `shared` in xenplugin.conf, so that it moves along",
        )


def _contradiction(source: Identity, target: Identity) -> str:
    """Return a name of `target` that the same disk would have as well; "" if there is none."""
    for name in target.own if source.device else ():
        kind = name.split(" ")[0]
        same_kind = [other for other in source.own if other.split(" ")[0] == kind]
        if not is_local(name) and same_kind and name not in same_kind:
            return name
    return ""


def _size(path: str) -> int:
    """Return the bytes of a file or block device. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)


def _shared(path: str, name: str, *, same: bool, live: bool) -> RefusedError:
    text = f"{path} {'is the source disk itself' if same else 'overlaps the source disk'}"
    other = f"SRC and DST lead to {os.path.realpath(path)}: name another DST"
    if not same:
        other = f"DST leads to {os.path.realpath(path)}, which has a part of SRC, or is one: name another DST"
    if is_local(name):
        return RefusedError(text, hint="migrate it to another host" if live else other)
    hint = f'{_NAME_IT} ["{path}"]' if live and same else _ELSEWHERE if live else other
    return RefusedError(f"{text}: both hosts share it ({name})", hint=hint)


def unknown(path: str) -> str:
    """Return the warning for an administrator where refuse_shared() returned False."""
    return f"cannot find out whether both hosts share the device {path}"


def ask(path: str) -> str:
    """Return the hint that goes with `unknown` where a guest's disk is refused."""
    return f'{_NAME_IT} ["{path}"]; if none is shared: shared = []'


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
            type(mark.name) is type(mark.file) is type(mark.family) is str
            and type(mark.inode) is type(mark.own) is int
            and _MARKER.fullmatch(mark.name)
            for mark in marks
        )
    ):
        raise PeerError("the job's description of its disk is not valid")
    return Identity(tuple(own), tuple(below), device), marks


@contextmanager
def _marker(folder: str) -> Iterator[tuple[str, int]]:
    """Create a marker in `folder`. Yields its name and its inode number. Raises OSError."""
    _sweep(folder)
    path, fd = _locked_marker(folder)
    try:
        yield os.path.basename(path), os.fstat(fd).st_ino
    finally:
        with suppress(OSError):
            remove(path)
        os.close(fd)


def _locked_marker(folder: str) -> tuple[str, int]:
    """Create a marker in `folder` and lock it, where that works. Returns its path and its descriptor. Raises
    OSError."""
    while True:
        path = os.path.join(folder, f".xenplugin-{secrets.token_hex(16)}")
        fd = os.open(path, _CREATE, 0o600)
        try:
            with suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_EX)  # nobody holds it for long
            with suppress(FileNotFoundError):  # another session may have removed it, because it was not locked yet
                if os.path.samestat(os.fstat(fd), os.lstat(path)):
                    return path, fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _sweep(folder: str) -> None:
    """Remove the markers that sessions which died have left in `folder`."""
    with suppress(OSError), os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _MARKER.fullmatch(entry.name)]
        age = _OLD if names and family(folder) else 0.0
        for name in names:
            with suppress(OSError):
                _remove_old(os.path.join(folder, name), age)


def _remove_old(path: str, age: float) -> None:
    """Remove the marker at `path` if it is older than `age` seconds and nobody holds its lock. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        empty = stat.S_ISREG(status.st_mode) and not status.st_size
        if empty and (not age or time.time() - status.st_mtime > age):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(path)
    finally:
        os.close(fd)
