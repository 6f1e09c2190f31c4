"""Refuse a target that is in use, and say by what.

Strategy: first let the kernel decide, then find the user. A block device is claimed with O_EXCL, which fails while
it is mounted, used as swap or part of a dm, md or bcache device. A write lease on a file fails while any other open
file refers to it, in any namespace. Neither works for a device opened without a claim, as QEMU does, or for a file
of another owner; those uses are searched for in /proc/*/fd and /sys/block/loop*. Without privileges the search sees
only the user's own processes, but claims and leases still work. A lease can be kept for a moment (kept_closed): a
program that opens the file meanwhile waits for its end.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from glob import glob

from xenplugin.errors import RefusedError
from xenplugin.image.files import os_errors

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
            raise _refused(path, device_holder(path) or opener(os.stat(path), -1)) from error


def _refused(path: str, holder: str | None) -> RefusedError:
    return RefusedError(
        f"{path} is in use: {holder or 'the kernel does not report by what'}",
        hint="stop the program that uses it, or choose another target",
    )


def _refuse_used_device(path: str, fd: int, status: os.stat_result, claimed: bool) -> None:
    holder = device_holder(path)
    if holder:
        raise _refused(path, holder)
    if not claimed:
        os.close(claim_device(path, os.O_RDONLY))
    deadline = time.monotonic() + GRACE
    while holder := opener(status, fd):
        if time.monotonic() > deadline:
            raise _refused(path, holder)
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
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _refuse_used_file(path: str, fd: int, status: os.stat_result) -> bool:
    """Return whether `fd` has a lease now, which the caller has to end."""
    leased = _lease(fd)
    try:
        holder = _loop_on(lambda other: os.path.samestat(other, status))
        if not holder and not leased:
            holder = opener(status, fd)
            if not holder and (leased := _lease(fd)) is False:
                raise _refused(path, None)
        if holder:
            raise _refused(path, holder)
    except BaseException:
        if leased:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        raise
    return bool(leased)


def _lease(fd: int) -> bool | None:
    """Take a write lease. Returns False if another open file refers to the inode; None where leases do not work."""
    try:
        # If the file is opened meanwhile, the lease sends a signal: one that does not end the process.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EBUSY) else None
    return True


def device_holder(path: str) -> str | None:
    """Return what uses block device `path` within the kernel: a mount, swap, a mapped device or a loop device."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    numbers = {status.st_rdev}
    base = _sysfs(status.st_rdev)
    for part in glob(f"{base}/*/partition"):
        numbers.add(_device_number(os.path.dirname(part)))
    for source, where in _mounts(numbers):
        return f"{source} is mounted at {where}"
    for name in _swaps(numbers):
        return f"{name} is swap space"
    for holder in glob(f"{base}/holders/*") + glob(f"{base}/*/holders/*"):
        return f"it is part of {_mapped_name(holder)}"
    return _loop_on(lambda other: stat.S_ISBLK(other.st_mode) and other.st_rdev in numbers)


def refuse_mount_point(path: str) -> None:
    """Raise RefusedError if something is mounted at the file `path` (symbolic links resolved): the name of a mount
    point cannot be given to another file."""
    if any(where == path for _, _, where in _mount_table()):
        raise RefusedError(
            f"{path} is a mount point, so it cannot be replaced",
            hint="name the file that is mounted there by its own path (findmnt shows it), or unmount it",
        )


def _sysfs(rdev: int) -> str:
    return f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}"


def _device_number(directory: str) -> int:
    with open(os.path.join(directory, "dev")) as file:
        major, minor = file.read().split(":")
    return os.makedev(int(major), int(minor))


def _mounts(numbers: set[int]) -> Iterator[tuple[str, str]]:
    """Yield (source, mount point) for the mounts of these devices in this mount namespace."""
    for number, source, where in _mount_table():
        # btrfs and some others show a number of their own, but their source is the device's name.
        if number in numbers or _is_device(source, numbers):
            yield source, where


def _mount_table() -> Iterator[tuple[int, str, str]]:
    """Yield (device number, source, mount point) for all mounts in this mount namespace."""
    try:
        with open("/proc/self/mountinfo", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        fields = line.split(" ")
        major, minor = fields[2].split(":")
        source = fields[fields.index("-") + 2]
        where = re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), os.fsencode(fields[4]))
        yield os.makedev(int(major), int(minor)), source, os.fsdecode(where)


def _is_device(name: str, numbers: set[int]) -> bool:
    if not name.startswith("/"):
        return False
    try:
        status = os.stat(name)
    except OSError:
        return False
    return stat.S_ISBLK(status.st_mode) and status.st_rdev in numbers


def _swaps(numbers: set[int]) -> Iterator[str]:
    try:
        with open("/proc/swaps") as file:
            names = [line.split()[0] for line in file.read().splitlines()[1:]]
    except OSError:
        return
    yield from (name for name in names if _is_device(name, numbers))


def _mapped_name(holder: str) -> str:
    """Return the path that users know for the device behind a sysfs directory: /dev/mapper/NAME or /dev/mdN."""
    try:
        with open(os.path.join(holder, "dm", "name")) as file:
            return "/dev/mapper/" + file.read().strip()
    except OSError:
        return "/dev/" + os.path.basename(holder)


def _loop_on(same: Callable[[os.stat_result], bool]) -> str | None:
    """Return the loop device whose backing file satisfies `same`, and where it is mounted, as text."""
    for name in glob("/sys/block/loop*/loop/backing_file"):
        try:
            with open(name, errors="surrogateescape") as file:
                backing = os.stat(file.read().rstrip("\n"))
            if not same(backing):
                continue
            directory = name.removesuffix("/loop/backing_file")
            device = "/dev/" + os.path.basename(directory)
            numbers = {_device_number(directory)}
            numbers.update(_device_number(os.path.dirname(p)) for p in glob(f"{directory}/*/partition"))
        except OSError:
            continue
        for _, where in _mounts(numbers):
            return f"{device} is set up on it and mounted at {where}"
        return f"{device} is set up on it"
    return None


def opener(status: os.stat_result, own: int) -> str | None:
    """Return, as text, a process that has the file or device of `status` open, except for our descriptor `own`."""
    me = os.getpid()
    for pid, number in _open_files(status):
        if pid != me:
            return f"process {pid} ({_command(pid)}) has it open"
        if number != own:
            return "this command has it open already"
    return None


def _open_files(status: os.stat_result) -> Iterator[tuple[int, int]]:
    """Yield (pid, descriptor) of every open file that is the one of `status`, in the processes that we may see."""
    block = stat.S_ISBLK(status.st_mode)
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for number in numbers:
            link = f"/proc/{pid}/fd/{number}"
            try:
                # Compare names first: stat() of a file on a dead network file system would hang.
                if not os.readlink(link).startswith("/dev/" if block else "/"):
                    continue
                other = os.stat(link)
            except OSError:
                continue
            same = other.st_rdev == status.st_rdev and stat.S_ISBLK(other.st_mode)
            if same if block else os.path.samestat(other, status):
                yield pid, int(number)


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "ended"
