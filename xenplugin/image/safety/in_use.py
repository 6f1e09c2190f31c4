"""Refuse a target that is in use, and say by what.

Strategy: first let the kernel decide, then find the user. A block device is claimed with O_EXCL, which fails while
it is mounted, used as swap or part of a dm, md or bcache device. A write lease on a file fails while any other open
file refers to it, in any namespace. Neither works for a device opened without a claim, as QEMU does, or for a file
of another owner; those uses are searched for (safety/users.py). A lease can be kept for a moment (kept_closed): a
program that opens the file meanwhile waits for its end. Sources are asked by safety/written.py.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from xenplugin.errors import RefusedError
from xenplugin.image.files import os_errors
from xenplugin.image.safety import lease
from xenplugin.image.safety.mounts import mounts
from xenplugin.image.safety.users import Use, loops_on, openers, uses_around_device, uses_of_device

#: Seconds to wait for programs that open a device only briefly (udev, blkid).
GRACE = 2.0


def refuse_if_used(path: str, fd: int, *, claimed: bool = False) -> None:
    """Raise RefusedError if anything but the descriptor `fd` uses the file or block device that it refers to.

    `path` is for messages, and to open a device once more. `claimed`: `fd` is from claim_device(). Raises
    ImageError if the target cannot be examined.
    """
    with os_errors("examine", path):
        status = os.fstat(fd)
        if stat.S_ISBLK(status.st_mode):
            _refuse_used_device(path, fd, status, claimed)
        elif stat.S_ISREG(status.st_mode):
            with kept_closed(path, fd):
                pass


def claim_device(path: str, flags: int) -> int:
    """Open block device `path` with `flags` and O_EXCL: nothing else can claim or mount it while it is open.

    Raises RefusedError, with its user, if it is in use; ImageError for other failures.
    """
    with os_errors("open", path):
        try:
            return os.open(path, flags | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            status = os.stat(path)
            raise _refused(path, _first(uses_of_device(status.st_rdev)) or _first(openers(status))) from error


def _first(uses: Iterator[Use]) -> str | None:
    return next((use.text for use in uses), None)


def _writers(uses: Iterator[Use]) -> Iterator[Use]:
    return (use for use in uses if use.writes)


def _refused(path: str, user: str | None) -> RefusedError:
    return RefusedError(
        f"{path} is in use: {user or 'the kernel does not report by what'}",
        hint="end that use of it (umount, losetup -d, stop the program), or choose another target",
    )


def _refuse_used_device(path: str, fd: int, status: os.stat_result, claimed: bool) -> None:
    if user := _first(uses_of_device(status.st_rdev)):
        raise _refused(path, user)
    if not claimed:
        os.close(claim_device(path, os.O_RDONLY))
    deadline = time.monotonic() + GRACE
    while user := _first(chain(openers(status, fd), _writers(uses_around_device(status.st_rdev)))):
        if time.monotonic() > deadline:
            raise _refused(path, user)
        time.sleep(0.05)


@contextmanager
def kept_closed(path: str, fd: int) -> Iterator[None]:
    """Raise RefusedError if anything but `fd` uses the regular file that it refers to. Within the context nothing
    can open it, where leases work (not as another user than its owner, not on NFS). For a moment only: after 45 s
    the kernel lets the others in. Raises ImageError if the file cannot be examined."""
    with os_errors("examine", path):
        leased = _refuse_used_file(path, fd, os.fstat(fd))
    try:
        yield
    finally:
        if leased:
            lease.release(fd)


def _refuse_used_file(path: str, fd: int, status: os.stat_result) -> bool:
    """Return whether `fd` has a lease now, which the caller has to end."""
    leased = lease.take(fd, lease.WRITE)
    try:
        user = _first(loops_on(lambda other: os.path.samestat(other, status)))
        if not user and not leased:
            user = _first(openers(status, fd))
            if not user and (leased := lease.take(fd, lease.WRITE)) is False:
                raise _refused(path, None)
        if user:
            raise _refused(path, user)
    except BaseException:
        if leased:
            lease.release(fd)
        raise
    return bool(leased)


def refuse_mount_point(path: str) -> None:
    """Raise RefusedError if something is mounted at the file `path` (symbolic links resolved): the name of a mount
    point cannot be given to another file."""
    if any(mount.where == path for mount in mounts()):
        raise RefusedError(
            f"{path} is a mount point, so it cannot be replaced",
            hint="name the file that is mounted there by its own path (findmnt shows it), or unmount it",
        )
