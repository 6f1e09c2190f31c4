"""Refuse a source that something may write to, and say what.

Strategy: what is asked about a target is asked about a source as well (safety/users.py), but only uses that may
write count: a file system that is mounted read-only, or a program that reads, does no harm. A read lease on a file
fails while a program has it open for writing, or has mapped it, in any namespace. Nothing is held during the copy:
what begins to write later is found at its end (source/content_state.py).

Writes to a device stay in its own page cache as long as anything has it open. They are not yet in the file or the
device below it, where the source is read. So they are written back first.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain

from xenplugin.errors import RefusedError
from xenplugin.image.files import os_errors
from xenplugin.image.safety import in_use, lease
from xenplugin.image.safety.users import (
    Use,
    layers_above,
    loops_on,
    node_of,
    openers,
    uses_around_device,
    uses_of_device,
)

_HINT = (
    "unmount it or remount it read-only (mount -o remount,ro), or end that program; or copy a snapshot of it"
    " (lvcreate --snapshot)"
)


def write_back(path: str) -> None:
    """Have the kernel write to the image `path` what programs have written to the devices above it, as far as the
    user may open these."""
    with suppress(OSError):
        status = os.stat(path)
        for number in layers_above(status):
            with suppress(OSError):
                fd = os.open(node_of(number), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)


def refuse_written(path: str, fd: int, notify: Callable[[str], None]) -> None:
    """Raise RefusedError if anything may write to the file or block device `path`, which is open for reading as
    `fd`. `notify` gets a line of text if that cannot be known. Raises ImageError if it cannot be examined."""
    with os_errors("examine", path):
        status = os.fstat(fd)
        if stat.S_ISBLK(status.st_mode):
            _refuse_device(path, fd, status, notify)
        else:
            _refuse_file(path, fd, status, notify)


def _refuse_device(path: str, fd: int, status: os.stat_result, notify: Callable[[str], None]) -> None:
    uses = list(uses_of_device(status.st_rdev))
    _refuse_writers(path, uses)
    _refuse_opened(path, lambda: chain(openers(status, fd), uses_around_device(status.st_rdev)))
    if not uses and _is_claimed(path):  # ZFS, or the second disk of a btrfs, for example
        raise _refused(path, "it is claimed, and the kernel does not report by what")
    _notify_unseen(path, notify)


def _is_claimed(path: str) -> bool:
    """Return whether something has claimed the device, as what mounts it does, and keeps it for GRACE."""
    deadline = time.monotonic() + in_use.GRACE
    while True:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC))
            return False
        except OSError as error:
            if error.errno != errno.EBUSY:
                return False
        if time.monotonic() > deadline:
            return True
        time.sleep(0.05)


def _refuse_file(path: str, fd: int, status: os.stat_result, notify: Callable[[str], None]) -> None:
    alone = lease.take(fd, lease.READ)
    if alone:
        lease.release(fd)
        return
    loops = list(loops_on(lambda other: os.path.samestat(other, status)))
    _refuse_writers(path, loops)
    _refuse_opened(path, lambda: openers(status, fd))
    if alone is None:
        _notify_unseen(path, notify)
    # A loop device that nothing writes to has the file open as well.
    elif not loops and not _alone_soon(fd):
        raise _refused(path, "a program has it open for writing, and the kernel does not report which")


def _alone_soon(fd: int) -> bool:
    """Return whether no program has the file open for writing, or none has it any more within GRACE."""
    deadline = time.monotonic() + in_use.GRACE
    while not (alone := lease.take(fd, lease.READ)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if alone:
        lease.release(fd)
    return bool(alone)


def _refuse_writers(path: str, uses: list[Use]) -> None:
    """Raise RefusedError if one of `uses` writes."""
    if (found := next((use for use in uses if use.writes), None)) is not None:
        raise _refused(path, found.text)


def _refuse_opened(path: str, opened: Callable[[], Iterator[Use]]) -> None:
    """Raise RefusedError if one of the programs of `opened` writes, and goes on to for GRACE."""
    deadline = time.monotonic() + in_use.GRACE
    while (found := next((use for use in opened() if use.writes), None)) is not None:
        if time.monotonic() > deadline:
            raise _refused(path, found.text)
        time.sleep(0.05)


def _notify_unseen(path: str, notify: Callable[[str], None]) -> None:
    if os.geteuid() != 0:
        notify(f"whether a program of another user writes to {path} cannot be known: only root can see that")


def _refused(path: str, user: str) -> RefusedError:
    return RefusedError(f"{path} may be written to while it is copied: {user}", hint=_HINT)
