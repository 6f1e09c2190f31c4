"""Find what uses a file or a block device of this host, and whether it may write to it.

Strategy: what the kernel lists comes first: mounts, swap, and what lies above the device, which are mapped devices,
RAID, and loop devices, each with its own uses. Then the descriptors of all processes, in /proc/*/fd; without
privileges these are only the user's own. Mounts in other mount namespaces are not seen.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from glob import glob

from xenplugin.image.safety.mounts import is_device, mounts_of

_SYS = "/sys"
_DEV = "/dev"


@dataclass(frozen=True)
class Use:
    """A use, as `text` for messages; `writes`: the user may write to the file or device."""

    text: str
    writes: bool


def uses_of_device(number: int) -> Iterator[Use]:
    """Yield the uses within the kernel of the block device `number`, its partitions included."""
    numbers = {number, *partitions(number)}
    for mount in mounts_of(numbers):
        yield Use(f"{mount.source} is mounted at {mount.where}", mount.writable)
    for name in _swaps(numbers):
        yield Use(f"{name} is swap space", True)
    for holder in _holders(numbers):
        yield _use_through(f"it is part of {_mapped_name(holder)}", holder)
    yield from loops_on(_one_of(numbers))


def loops_on(same: Callable[[os.stat_result], bool], *, but: int | None = None) -> Iterator[Use]:
    """Yield the loop devices whose backing file or device satisfies `same`, each as a use of it, except for the
    device `but`."""
    for directory in _loops(same):
        device = f"{_DEV}/{os.path.basename(directory)}"
        number = _number(directory)
        if number in (None, but):
            continue
        text = f"{device} is set up on it"
        for mount in mounts_of({number, *partitions(number)}):
            yield Use(f"{text} and mounted at {mount.where}", mount.writable)
        yield _use_through(text, directory)


def loop_devices(status: os.stat_result) -> list[str]:
    """Return the paths of the loop devices on the file of `status`."""
    return [f"{_DEV}/{os.path.basename(found)}" for found in _loops(lambda other: os.path.samestat(other, status))]


def openers(status: os.stat_result, own: int = -1) -> Iterator[Use]:
    """Yield the processes that have the file or device of `status` open, except for our descriptor `own`."""
    if stat.S_ISBLK(status.st_mode):
        yield from openers_of_devices({status.st_rdev}, own)
        return
    yield from _openers("/", lambda other: os.path.samestat(other, status), own)


def openers_of_devices(numbers: set[int], own: int = -1) -> Iterator[Use]:
    """Yield the processes that have one of the block devices `numbers` open, except for our descriptor `own`."""
    yield from _openers("/dev/", _one_of(numbers), own)


def uses_around_device(number: int) -> Iterator[Use]:
    """Yield the uses of what shares its content with the block device `number`: other loop devices on the file
    behind it, and the programs that have that file, its disk, or one of its partitions open."""
    if (file := _backing_file(number)) is not None:
        uses = (*loops_on(lambda other: os.path.samestat(other, file), but=number), *openers(file))
        yield from (Use(f"of the file behind it, {use.text}", use.writes) for use in uses)
    if around := partitions(number) | _whole_disk(number):
        yield from openers_of_devices(around)


def partitions(number: int) -> set[int]:
    """Return the partitions of block device `number`."""
    names = glob(f"{_directory(number)}/*/partition")
    return {found for name in names if (found := _number(os.path.dirname(name))) is not None}


def _whole_disk(number: int) -> set[int]:
    """Return the disk that block device `number` is a partition of; nothing if it is none."""
    here = _directory(number)
    if not os.path.exists(f"{here}/partition"):
        return set()
    found = _number(os.path.dirname(os.path.realpath(here)))
    return set() if found is None else {found}


def _backing_file(number: int) -> os.stat_result | None:
    """Return the status of the file behind loop device `number`; None if it is none, or the file has no name."""
    with suppress(OSError), open(f"{_directory(number)}/loop/backing_file", errors="surrogateescape") as file:
        return os.stat(file.read().rstrip("\n"))
    return None


def layers_above(status: os.stat_result) -> set[int]:
    """Return the block devices whose writes may end in the file or device of `status`: itself, its disk, and what
    lies above it: loop devices, partitions, mapped devices."""
    found: set[int] = set()
    if stat.S_ISBLK(status.st_mode):
        new = {status.st_rdev}
        found = _whole_disk(status.st_rdev)  # but not its other partitions
    else:
        new = _numbers(_loops(lambda other: os.path.samestat(other, status)))
    while new:
        found |= new
        numbers = {part for number in new for part in partitions(number)} | new
        above = _numbers(_holders(numbers)) | _numbers(_loops(_one_of(numbers)))
        new = (numbers | above) - found
    return found


def node_of(number: int) -> str:
    """Return the path below /dev of block device `number`."""
    return f"{_DEV}/" + os.path.basename(os.path.realpath(_directory(number))).replace("!", "/")


def _one_of(numbers: set[int]) -> Callable[[os.stat_result], bool]:
    """Return a test for the status of one of the block devices `numbers`."""
    return lambda status: stat.S_ISBLK(status.st_mode) and status.st_rdev in numbers


def _directory(number: int) -> str:
    return f"{_SYS}/dev/block/{os.major(number)}:{os.minor(number)}"


def _number(directory: str) -> int | None:
    with suppress(OSError, ValueError), open(os.path.join(directory, "dev"), encoding="ascii") as file:
        major, minor = file.read().split(":")
        return os.makedev(int(major), int(minor))
    return None


def _numbers(directories: Iterator[str]) -> set[int]:
    return {number for directory in directories if (number := _number(directory)) is not None}


def _holders(numbers: set[int]) -> Iterator[str]:
    """Yield the directories in /sys of the devices that the devices `numbers` are part of."""
    for number in sorted(numbers):
        yield from glob(f"{_directory(number)}/holders/*")


def _loops(same: Callable[[os.stat_result], bool]) -> Iterator[str]:
    """Yield the directories in /sys of the loop devices whose backing file or device satisfies `same`."""
    for name in glob(f"{_SYS}/block/loop*/loop/backing_file"):
        with suppress(OSError), open(name, errors="surrogateescape") as file:
            if same(os.stat(file.read().rstrip("\n"))):
                yield name.removesuffix("/loop/backing_file")


def _use_through(text: str, directory: str) -> Use:
    """Return the use by the device with this directory in /sys: it writes if something writes to that device."""
    number = _number(directory)
    if number is None or _read(f"{directory}/ro") not in ("", "0"):
        return Use(text, False)
    if os.path.isdir(f"{directory}/md"):  # RAID writes by itself as well: its superblocks, and to repair
        return Use(text, True)
    for uses in (uses_of_device(number), openers_of_devices({number, *partitions(number)})):
        for use in uses:
            if use.writes:
                return Use(f"{text}, and {use.text}", True)
    return Use(text, False)


def _swaps(numbers: set[int]) -> Iterator[str]:
    try:
        with open("/proc/swaps", errors="surrogateescape") as file:
            names = [line.split()[0] for line in file.read().splitlines()[1:]]
    except OSError:
        return
    yield from (name for name in names if is_device(name, numbers))


def _mapped_name(holder: str) -> str:
    """Return the path that users know for the device behind a sysfs directory: /dev/mapper/NAME or /dev/mdN."""
    name = _read(os.path.join(holder, "dm", "name"))
    return f"/dev/mapper/{name}" if name else "/dev/" + os.path.basename(holder)


def _read(path: str) -> str:
    """Return the text of the file at `path`, without the space around it; "" if it cannot be read."""
    with suppress(OSError), open(path, errors="surrogateescape") as file:
        return file.read().strip()
    return ""


def _openers(start: str, same: Callable[[os.stat_result], bool], own: int) -> Iterator[Use]:
    """Yield the processes with an open file, below the path `start`, that satisfies `same`."""
    me = os.getpid()
    for pid, number in _open_files(start, same):
        writes = _writes(pid, number)
        if pid != me:
            yield Use(f"process {pid} ({_command(pid)}) has it open{' for writing' if writes else ''}", writes)
        elif number != own:
            yield Use("this command has it open already", writes)


def _open_files(start: str, same: Callable[[os.stat_result], bool]) -> Iterator[tuple[int, int]]:
    """Yield (pid, descriptor) of the open files that satisfy `same`, in the processes that we may see."""
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for number in numbers:
            link = f"/proc/{pid}/fd/{number}"
            # Compare names first: stat() of a file on a dead network file system would hang.
            with suppress(OSError):
                if os.readlink(link).startswith(start) and same(os.stat(link)):
                    yield pid, int(number)


def _writes(pid: int, number: int) -> bool:
    """Return whether the descriptor is open for writing; True if that cannot be read."""
    for line in _read(f"/proc/{pid}/fdinfo/{number}").splitlines():
        name, _, value = line.partition(":")
        if name == "flags":
            return int(value, 8) & os.O_ACCMODE != os.O_RDONLY
    return True


def _command(pid: int) -> str:
    return _read(f"/proc/{pid}/comm") or "ended"
