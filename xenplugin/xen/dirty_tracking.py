"""Dirty-chunk tracking: the chunks of a disk that its guest writes, from the kernel's block tracepoints.

blkback submits a guest's requests to a block device of dom0 (a disk, an LVM volume, the loop device of a file). A
private tracefs instance records each write when it is submitted (block_bio_queue) and when it is done
(block_rq_complete, or block_bio_complete for devices without a queue of their own); xen/block_events.py says why
both are needed. Nothing has to be set up before the guest starts.

Tracking is tested before it is trusted: a read by this process must appear at both points, which also shows what
the kernel calls the device and where a partition begins. Each drain writes a mark into the trace and reads up to
it, which bounds the drain and shows that the trace still runs. If events were lost or cannot be parsed, `drain()`
returns None: compare everything."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from collections.abc import Callable

from xenplugin.image.source.changes import Changes, Unwatched
from xenplugin.xen.block_events import DONE, QUEUED, SECTOR, DirtyTally, parse
from xenplugin.xen.guest import Disk
from xenplugin.xen.serving_device import Device, device_path, serving_device, sysfs, whole_disk
from xenplugin.xen.tracefs import CannotTrackError, TraceInstance

#: Seconds between two emptyings of the kernel's buffer; and at most, to wait for writes that began before.
_PAUSE, _QUIET = 0.25, 2.0
#: Bytes of the read that tests the trace.
_PROBE = 4 << 20


def track(disk: Disk, notify: Callable[[str], None]) -> Changes:
    """Track the writes to `disk` from now on. If that is impossible, `notify` gets the reason in a line, and the
    answer will always be that everything may have changed."""
    try:
        return TrackedDisk(*serving_device(disk))
    except (CannotTrackError, OSError) as exc:
        notify(f"{disk.device}: writes cannot be tracked, so the whole disk is compared instead: {exc}")
        return Unwatched()


class TrackedDisk:
    """The writes to a block device of dom0 whose first byte is byte `offset` of the image, from now on. Raises
    CannotTrackError or OSError if they cannot be tracked. A thread empties the kernel's buffer now and then."""

    def __init__(self, device: Device, offset: int = 0) -> None:
        self._trace = TraceInstance()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._empty_buffer, name="dirty", daemon=True)
        try:
            queued, done, first = _probe(self._trace, device)
            sectors = int(sysfs(device, "size"))
            self._tally = DirtyTally(offset - first * SECTOR, offset + sectors * SECTOR)
            where = f'sector >= {first} && sector < {first + sectors} && !(rwbs ~ "R*")'
            self._trace.start(
                _filters(f"dev == {_number(queued)} && {where}", f"dev == {_number(done)} && {where}")
            )
            # Wait for writes that began before. If the guest makes no pause, the first drain will return None.
            deadline = time.monotonic() + _QUIET
            while int(sysfs(device, "inflight").split()[1]) and time.monotonic() < deadline:
                time.sleep(0.005)
            self.drain()
        except BaseException:
            self._trace.close()
            raise
        self._reader.start()

    def drain(self) -> set[int] | None:
        """Return the chunks written since the last call, and those that were being written then; None: unknown,
        compare all. Every write that was submitted before this call is included."""
        with self._lock:
            try:
                for line in self._trace.lines(self._trace.mark()):
                    self._tally.add(parse(line))
            except (CannotTrackError, OSError):
                self._tally.lose()
            return self._tally.drain()

    def close(self) -> None:
        """Stop tracking, and leave nothing behind in the kernel."""
        self._stop.set()
        self._reader.join()
        self._trace.close()

    def _empty_buffer(self) -> None:
        while not self._stop.wait(_PAUSE):
            with self._lock, contextlib.suppress(OSError):  # drain() will find that the trace has failed
                for line in self._trace.lines():
                    self._tally.add(parse(line))


def _filters(queued: str, done: str) -> dict[str, str]:
    """Return the filters in the order in which recording begins: completions first, because a completion that is
    missed would leave its chunk under way for ever."""
    return {f"block/{point}": done for point in DONE} | {f"block/{QUEUED}": queued}


def _probe(trace: TraceInstance, device: Device) -> tuple[Device, Device, int]:
    """Read from the device, and find the read in the trace. Returns what the kernel calls the device when a request
    is queued and when it is done, and the device's first sector there."""
    path, whole = device_path(device), whole_disk(device)
    # O_DIRECT, as root: the read must reach the device.
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_rdev != os.makedev(*device):
            raise CannotTrackError(f"{path} is another device than {device[0]}:{device[1]}")
        length = min(_PROBE, int(sysfs(device, "size")) * SECTOR // mmap.PAGESIZE * mmap.PAGESIZE)
        for _ in range(3):  # the guest may read the same sectors at the same time
            # (The device mapper queues requests again on the devices below it.)
            reads = f'(dev == {_number(device)} || dev == {_number(whole)}) && rwbs ~ "R*"'
            trace.start(_filters(f"common_pid == {threading.get_native_id()} && {reads}", reads))
            with mmap.mmap(-1, max(length, mmap.PAGESIZE)) as buffer:
                if length == 0 or os.preadv(fd, [buffer], 0) != length:
                    raise CannotTrackError(f"{path} cannot be read")
            events = [event for event in map(parse, trace.lines(trace.mark())) if event]
            own = [event for event in events if event.queued]
            first = min((event.sector for event in own), default=0)
            inside = range(first, first + length // SECTOR)
            if len({event.device for event in own}) != 1 or sum(event.count for event in own) != len(inside):
                continue
            for done in (device, whole):
                ended = [event for event in events if not event.queued and event.device == done]
                # Of a request that it split, the device mapper reports only the end of the last part. Its chunks
                # then count as under way for ever and are reported each time, which costs but loses nothing.
                if 0 < sum(event.count for event in ended if event.sector in inside) <= len(inside):
                    return own[0].device, done, first
    finally:
        os.close(fd)
    raise CannotTrackError(f"the kernel does not trace what is read from {path} and written to it")


def _number(device: Device) -> int:
    """Return the device number as the kernel's filters take it."""
    return device[0] << 20 | device[1]
