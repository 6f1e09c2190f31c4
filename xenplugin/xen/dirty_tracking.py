"""Which chunks of a disk its guest writes, told by the kernel's block tracepoints, without any set-up before.

Strategy: blkback submits a guest's requests to a block device of dom0 (a disk, an LVM volume, the loop device of a
file). An instance of tracefs of our own records each write as it is submitted (block_bio_queue) and as it is done
(block_rq_complete, or block_bio_complete for devices without a queue of their own). Both are needed: what was
submitted, but is not yet done while the chunk is read again, could else be lost, so chunks with writes under way
are told once more by the next `drain()`. Nothing is believed that was not tried: a read of our own must appear at
both points, which also tells what the kernel calls the device and where a partition begins. A marker that is
written and read back bounds each drain and shows that the trace still runs. Where events were lost, or lines cannot
be understood, `drain()` says that it does not know.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xenplugin.geometry import CHUNK, chunk_count
from xenplugin.image.source.changes import Changes, Unwatched
from xenplugin.xen.guest import Disk
from xenplugin.xen.tracefs import CannotWatchError, TraceInstance

SECTOR = 512
#: Seconds between two emptyings of the kernel's buffer, and at most for writes that began before the watch.
_PAUSE, _QUIET = 0.25, 2.0
#: Chunks (512 GiB) above which comparing all is no worse than remembering them.
_MOST = 1 << 19
_PROBE = 4 << 20
_QUEUED, _DONE = "block_bio_queue", ("block_rq_complete", "block_bio_complete")
_LINE = re.compile(
    rf"({_QUEUED}|{'|'.join(_DONE)}): ([0-9]+),([0-9]+) ([A-Z]+) (?:\(.*\) )?([0-9]+) \+ ([0-9]+) .*\[.*\]"
)


def watch(disk: Disk, say: Callable[[str], None]) -> Changes:
    """Watches `disk` from now on, or, where that cannot be done, says why in a line, and compares."""
    try:
        return WatchedDisk(*_served(disk))
    except (CannotWatchError, OSError) as exc:
        say(f"{disk.device}: writes cannot be watched, the whole disk is compared instead: {exc}")
        return Unwatched()


# -- lines of the trace: pure ----------------------------------------------------------------------


@dataclass(frozen=True)
class Event:
    """A request was submitted (`queued`) or is done, wholly or in part; `sector` and `count` of 512 bytes."""

    queued: bool
    device: tuple[int, int]
    kind: str
    sector: int
    count: int


def parse(line: str) -> Event | None:
    """An event of trace_pipe, without context-info; None for anything else, as "CPU:0 [LOST 9 EVENTS]"."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    point, major, minor, kind, sector, count = match.groups()
    return Event(point == _QUEUED, (int(major), int(minor)), kind, int(sector), int(count))


class DirtyTally:
    """Counts events. `shift`: bytes from a place on the device to that in the image of `size` bytes."""

    def __init__(self, shift: int, size: int) -> None:
        self._shift = shift
        self._chunks = chunk_count(size)
        self._written: set[int] = set()
        self._flying: dict[int, int] = {}  # sectors under way, by chunk
        self._again: set[int] = set()
        self._lost = False

    def add(self, event: Event | None) -> None:
        """The next line's event; None: some may have been lost here."""
        if event is None:
            self.lose()
            return
        begin = event.sector * SECTOR + self._shift
        end = begin + event.count * SECTOR
        first, last = max(0, begin // CHUNK), min(self._chunks, chunk_count(end))
        if event.kind.startswith("R") or first >= last:  # a read, or a flush without data
            return
        if len(self._written) + len(self._flying) + last - first > _MOST:
            self.lose()
            return
        for chunk in range(first, last):
            sectors = (min(end, (chunk + 1) * CHUNK) - max(begin, chunk * CHUNK)) // SECTOR
            if event.queued:
                self._written.add(chunk)
                self._flying[chunk] = self._flying.get(chunk, 0) + sectors
                continue
            left = self._flying.pop(chunk, 0) - sectors
            if left > 0:
                self._flying[chunk] = left
            elif left < 0:  # done, but never seen submitted
                self._lost = True

    def lose(self) -> None:
        """Anything may have been written, and what is under way is not known."""
        self._lost = True
        self._written.clear()
        self._flying.clear()

    def drain(self) -> set[int] | None:
        """The chunks that may have changed since the last call; None: any."""
        found = None if self._lost else self._written | self._again
        self._written, self._again, self._lost = set(), set(self._flying), False
        return found


# -- the trace -------------------------------------------------------------------------------------


class WatchedDisk:
    """The writes to a block device of dom0, (major, minor), whose first byte is byte `offset` of the image. Raises
    CannotWatchError or OSError where that cannot be done. A thread empties the kernel's buffer now and then."""

    def __init__(self, device: tuple[int, int], offset: int = 0) -> None:
        self._trace = TraceInstance()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._tender = threading.Thread(target=self._tend, name="writes", daemon=True)
        try:
            queued, done, first = _probe(self._trace, device)
            sectors = int(_sys(device, "size"))
            self._tally = DirtyTally(offset - first * SECTOR, offset + sectors * SECTOR)
            where = f'sector >= {first} && sector < {first + sectors} && !(rwbs ~ "R*")'
            self._trace.start(
                _filters(f"dev == {_number(queued)} && {where}", f"dev == {_number(done)} && {where}")
            )
            # Let writes that began before be over; if the guest makes no pause, the first drain will know nothing.
            deadline = time.monotonic() + _QUIET
            while int(_sys(device, "inflight").split()[1]) and time.monotonic() < deadline:
                time.sleep(0.005)
            self.drain()
        except BaseException:
            self._trace.close()
            raise
        self._tender.start()

    def drain(self) -> set[int] | None:
        """Chunks written since the last call, and those that were being written then; None: not known, compare all.
        What was submitted before this call is in it."""
        with self._lock:
            try:
                for line in self._trace.lines(self._trace.mark()):
                    self._tally.add(parse(line))
            except (CannotWatchError, OSError):
                self._tally.lose()
            return self._tally.drain()

    def close(self) -> None:
        """Watch no more; leaves nothing behind in the kernel."""
        self._stop.set()
        self._tender.join()
        self._trace.close()

    def _tend(self) -> None:
        while not self._stop.wait(_PAUSE):
            with self._lock, contextlib.suppress(OSError):  # drain() will tell
                for line in self._trace.lines():
                    self._tally.add(parse(line))


def _filters(queued: str, done: str) -> dict[str, str]:
    """What is done is recorded first: of what is seen submitted, nothing else may be missed."""
    return {f"block/{point}": done for point in _DONE} | {f"block/{_QUEUED}": queued}


def _probe(trace: TraceInstance, device: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int], int]:
    """What the kernel calls the device when a request is queued and when it is done, and its first sector there."""
    path, whole = _device(device), _whole(device)
    # As root, O_DIRECT: the read must reach the device.
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_rdev != os.makedev(*device):
            raise CannotWatchError(f"{path} is another device than {device[0]}:{device[1]}")
        length = min(_PROBE, int(_sys(device, "size")) * SECTOR // mmap.PAGESIZE * mmap.PAGESIZE)
        for _ in range(3):  # the guest may read the same, at the same time
            # (What a device of the device mapper hands on to others is queued there once more.)
            reads = f'(dev == {_number(device)} || dev == {_number(whole)}) && rwbs ~ "R*"'
            trace.start(_filters(f"common_pid == {threading.get_native_id()} && {reads}", reads))
            with mmap.mmap(-1, max(length, mmap.PAGESIZE)) as buffer:
                if length == 0 or os.preadv(fd, [buffer], 0) != length:
                    raise CannotWatchError(f"{path} cannot be read")
            events = [event for event in map(parse, trace.lines(trace.mark())) if event]
            mine = [event for event in events if event.queued]
            first = min((event.sector for event in mine), default=0)
            inside = range(first, first + length // SECTOR)
            if len({event.device for event in mine}) != 1 or sum(event.count for event in mine) != len(inside):
                continue
            for done in (device, whole):
                ended = [event for event in events if not event.queued and event.device == done]
                # The device mapper tells of a request that it split only the end of its last part: then it counts
                # as under way for ever, and its chunks are told each time, which costs but loses nothing.
                if 0 < sum(event.count for event in ended if event.sector in inside) <= len(inside):
                    return mine[0].device, done, first
    finally:
        os.close(fd)
    raise CannotWatchError(f"the kernel does not trace what is read from {path} and written to it")


# -- which device ----------------------------------------------------------------------------------


def _served(disk: Disk) -> tuple[tuple[int, int], int]:
    """The block device that the backend of `disk` writes to, and the byte of the image that it begins with."""
    if disk.backend != "vbd":
        raise CannotWatchError(f"it is served as {disk.backend}, not by the kernel")
    if disk.physical is None:
        raise CannotWatchError("xenstore does not say which device serves it")
    status = os.stat(disk.path)
    offset = 0
    if stat.S_ISREG(status.st_mode):
        if not os.path.samestat(os.stat(_sys(disk.physical, "loop/backing_file")), status):
            raise CannotWatchError(f"it is served from another file than {disk.path}")
        offset = int(_sys(disk.physical, "loop/offset"))
        if offset % SECTOR:
            raise CannotWatchError(f"its loop device begins at byte {offset}")
    elif os.makedev(*disk.physical) != status.st_rdev:
        raise CannotWatchError(f"it is served from another device than {disk.path}")
    if writer := _writer({(status.st_dev, status.st_ino)}, {status.st_rdev, os.makedev(*disk.physical)} - {0}):
        raise CannotWatchError(f"{writer} may write to it, too")
    return disk.physical, offset


def _writer(files: set[tuple[int, int]], devices: set[int]) -> str | None:
    """A process that has one of these open for writing, as QEMU has that serves an emulated disk."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, IndexError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError, IndexError):
                    if not os.readlink(f"/proc/{pid}/fd/{number}").startswith("/"):
                        continue  # pipes and sockets: most of them
                    status = os.stat(f"/proc/{pid}/fd/{number}")
                    if (status.st_dev, status.st_ino) not in files and status.st_rdev not in devices:
                        continue
                    flags = Path(f"/proc/{pid}/fdinfo/{number}").read_text().split("flags:")[1].split()[0]
                    if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
                        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    return None


def _sys(device: tuple[int, int], name: str) -> str:
    return Path(f"/sys/dev/block/{device[0]}:{device[1]}/{name}").read_text(errors="surrogateescape").rstrip("\n")


def _device(device: tuple[int, int]) -> str:
    match = re.search("^DEVNAME=(.+)$", _sys(device, "uevent"), re.MULTILINE)
    if match is None:
        raise CannotWatchError(f"there is no device {device[0]}:{device[1]}")
    return f"/dev/{match[1]}"


def _whole(device: tuple[int, int]) -> tuple[int, int]:
    """The disk that a partition is of; else the device itself."""
    if not os.path.exists(f"/sys/dev/block/{device[0]}:{device[1]}/partition"):
        return device
    major, minor = _sys(device, "../dev").split(":")
    return int(major), int(minor)


def _number(device: tuple[int, int]) -> int:
    """As the kernel's filters have it."""
    return device[0] << 20 | device[1]
