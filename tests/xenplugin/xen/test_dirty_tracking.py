"""Dirty-chunk tracking of real loop devices (needs root)."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from ctypes import addressof, create_string_buffer
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.helpers.images import LOSETUP
from xenplugin.geometry import CHUNK
from xenplugin.image.source.changes import Unwatched
from xenplugin.xen import dirty_tracking, tracefs
from xenplugin.xen.dirty_tracking import TrackedDisk
from xenplugin.xen.guest import Disk
from xenplugin.xen.serving_device import device_path
from xenplugin.xen.tracefs import CannotTrackError


def run(*words: str | Path) -> str:
    done = subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def mounted_tracefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        pytest.skip("needs root and loop devices")
    try:
        tracefs._tracefs()
    except CannotTrackError:
        folder = tmp_path_factory.mktemp("tracing")
        if subprocess.run(["mount", "-t", "tracefs", "tracefs", folder], capture_output=True).returncode:
            pytest.skip("tracefs cannot be mounted here")
        yield
        run("umount", folder)
    else:
        yield


@pytest.fixture
def served(tmp_path: Path, mounted_tracefs: None) -> Iterator[Callable[..., Disk]]:
    """A disk of 48 MiB in a file, behind a loop device that begins at byte `offset`."""
    made: list[str] = []

    def make(offset: int = 0) -> Disk:
        path = tmp_path / "disk.img"
        path.touch()
        os.truncate(path, 48 << 20)
        made.append(run(*LOSETUP, "--offset", str(offset), path))
        return Disk("xvda", str(path), True, "vbd", "phy", physical=number(made[-1]))

    yield make
    for name in made:
        subprocess.run(["losetup", "--detach", name], check=False, timeout=60)
    left = list((tracefs._tracefs() / "instances").glob(f"xenplugin-{os.getpid()}-*"))
    assert left == []


def number(device: str) -> tuple[int, int]:
    status = os.stat(device).st_rdev
    return os.major(status), os.minor(status)


def put(device: str, at: int, length: int = 4096) -> None:
    """As blkback writes: past the page cache."""
    with mmap.mmap(-1, length) as buffer:
        buffer.write(os.urandom(length))
        fd = os.open(device, os.O_WRONLY | os.O_DIRECT)
        try:
            assert os.pwrite(fd, buffer, at) == length
        finally:
            os.close(fd)


def block(device: tuple[int, int]) -> str:
    return device_path(device)


@pytest.fixture
def tracked(served: Callable[..., Disk]) -> Iterator[Callable[[Disk], TrackedDisk]]:
    made: list[TrackedDisk] = []

    def make(disk: Disk) -> TrackedDisk:
        said: list[str] = []
        found = dirty_tracking.track(disk, said.append)
        assert said == [] and isinstance(found, TrackedDisk)
        made.append(found)
        return found

    yield make
    for one in made:
        one.close()


def test_the_latest_write_is_reported(served: Callable[..., Disk], tracked: Callable[[Disk], TrackedDisk]) -> None:
    disk = served()
    assert disk.physical
    device, changes = block(disk.physical), tracked(disk)
    assert changes.drain() == set()
    for chunk in (0, 17, 47):
        put(device, chunk << 20)
        assert changes.drain() == {chunk}
    assert changes.drain() == set()
    put(device, (10 << 20) - 4096, 3 << 20)
    assert changes.drain() == {9, 10, 11, 12}
    run("blkdiscard", "-o", "20971520", "-l", "2097152", device)
    run("blkdiscard", "-z", "-o", "31457280", "-l", "1048576", device)
    assert changes.drain() == {20, 21, 30}
    with open(device, "r+b", buffering=0) as file:
        file.seek(40 << 20)
        file.write(b"x")
        os.fsync(file.fileno())
        assert changes.drain() == {40}
        file.seek(0)
        file.read(1 << 20)
    assert changes.drain() == set()


def test_a_copy_that_follows_a_busy_disk_is_the_disk_in_the_end(
    served: Callable[..., Disk], tracked: Callable[[Disk], TrackedDisk]
) -> None:
    """As a live migration does it, with writes under way at every moment but the last."""
    disk = served()
    assert disk.physical
    device, changes = block(disk.physical), tracked(disk)
    stop, random = threading.Event(), Random(7)
    written = [0, 0]

    def write(which: int) -> None:
        while not stop.is_set():
            put(device, random.randrange(0, 47 << 8) << 12, 4096 << random.randrange(6))
            written[which] += 1

    writers = [threading.Thread(target=write, args=(which,)) for which in range(2)]
    for writer in writers:
        writer.start()
    fd = os.open(disk.path, os.O_RDONLY)
    copy = {chunk: os.pread(fd, CHUNK, chunk * CHUNK) for chunk in range(48)}
    rounds = []
    while min(written) < 400:
        found = changes.drain()
        rounds.append(found)
        for chunk in range(48) if found is None else found:
            copy[chunk] = os.pread(fd, CHUNK, chunk * CHUNK)
    stop.set()
    for writer in writers:
        writer.join()
    last = changes.drain()
    for chunk in range(48) if last is None else last:
        copy[chunk] = os.pread(fd, CHUNK, chunk * CHUNK)
    assert [chunk for chunk in copy if copy[chunk] != os.pread(fd, CHUNK, chunk * CHUNK)] == []
    os.close(fd)
    assert rounds.count(None) <= 1 and any(found and len(found) < 48 for found in rounds)


def test_each_disk_reports_only_its_own_writes(
    served: Callable[..., Disk], tracked: Callable[[Disk], TrackedDisk]
) -> None:
    one, other = served(), served(8 << 20)
    assert one.physical and other.physical
    first, second = tracked(one), tracked(other)
    put(block(one.physical), 3 << 20)
    put(block(other.physical), 3 << 20)
    assert first.drain() == {3}
    assert second.drain() == {11}  # its loop device begins with the file's ninth MiB


def test_a_partition_counts_from_its_own_beginning(
    served: Callable[..., Disk], tracked: Callable[[Disk], TrackedDisk]
) -> None:
    whole = served()
    assert whole.physical
    device = block(whole.physical)
    partition(device, 1, 8 << 20, 16 << 20)
    try:
        path = f"{device}p1"
        disk = Disk("xvda", path, True, "vbd", "phy", physical=number(path))
        changes = tracked(disk)
        put(path, 3 << 20)
        put(device, 30 << 20)  # not in it
        assert changes.drain() == {3}
    finally:
        partition(device, 2, 8 << 20, 16 << 20)


def partition(device: str, what: int, start: int, length: int) -> None:
    """Add (1) or remove (2) partition 1: ioctl BLKPG, for there may be no table."""
    part = create_string_buffer(struct.pack("qqi64s64s4x", start, length, 1, b"", b""))
    fd = os.open(device, os.O_RDWR)
    try:
        fcntl.ioctl(fd, 0x1269, struct.pack("iiiP", what, 0, len(part) - 1, addressof(part)))
    except OSError:
        if what == 1:
            pytest.skip("this kernel makes no partitions of loop devices")
    finally:
        os.close(fd)


def test_lost_events_are_reported_once(served: Callable[..., Disk], tracked: Callable[[Disk], TrackedDisk]) -> None:
    disk = served()
    assert disk.physical
    device, changes = block(disk.physical), tracked(disk)
    with changes._lock:  # the thread that empties the buffer
        changes._trace._put("buffer_size_kb", "8")
        for page in range(1000):
            put(device, page * 4096)
    assert changes.drain() is None
    assert changes.drain() == set()
    put(device, 5 << 20)
    assert changes.drain() == {5}


def test_a_trace_that_somebody_stopped_is_noticed(
    served: Callable[..., Disk], tracked: Callable[[Disk], TrackedDisk]
) -> None:
    disk = served()
    assert disk.physical
    changes = tracked(disk)
    changes._trace._put("tracing_on", "0")
    put(block(disk.physical), 5 << 20)
    assert changes.drain() is None and changes.drain() is None
    changes._trace._put("tracing_on", "1")
    changes._tally.lose()
    assert changes.drain() is None
    put(block(disk.physical), 6 << 20)
    assert changes.drain() == {6}


def test_the_buffer_is_emptied_meanwhile(
    served: Callable[..., Disk], tracked: Callable[[Disk], TrackedDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dirty_tracking, "_PAUSE", 0.01)
    disk = served()
    assert disk.physical
    changes = tracked(disk)
    put(block(disk.physical), 5 << 20)
    deadline = time.monotonic() + 60
    while not changes._tally._written:  # the thread will
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert changes.drain() == {5}


def test_nodes_of_a_killed_process_are_removed(served: Callable[..., Disk]) -> None:
    instances = tracefs._tracefs() / "instances"
    disk = served()
    program = f"from xenplugin.xen.dirty_tracking import TrackedDisk\nTrackedDisk({disk.physical})\n"
    program += "print(flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin and child.stdout and child.stdout.readline() == b"\n"
    stale = instances / f"xenplugin-{child.pid}-0"
    tracefs.TraceInstance().close()
    assert stale.exists()  # its process lives
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert stale.exists()
    tracefs.TraceInstance().close()
    assert not stale.exists()


def test_untracked_disks_are_compared_with_a_notice(
    served: Callable[..., Disk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = served()
    assert disk.physical
    said: list[str] = []

    def refused(disk: Disk, word: str) -> None:
        assert isinstance(dirty_tracking.track(disk, said.append), Unwatched)
        assert word in said[-1] and "xvda" in said[-1] and "\n" not in said[-1]

    refused(replace(disk, backend="qdisk"), "qdisk")
    refused(replace(disk, physical=None), "xenstore")
    refused(replace(disk, physical=(7, 999)), "loop/backing_file")
    (tmp_path / "other").write_bytes(b"x")
    refused(replace(disk, path=str(tmp_path / "other")), "another file")
    refused(replace(disk, path=str(tmp_path / "gone")), "gone")
    refused(replace(disk, path="/dev/null"), "another device")
    for path in (disk.path, block(disk.physical)):
        with open(path, "r+b"):
            refused(disk, f"process {os.getpid()}")
        with open(path, "rb"):
            changes = dirty_tracking.track(disk, said.append)
            assert isinstance(changes, TrackedDisk)
            changes.close()
    refused(served(300), "byte 300")
    monkeypatch.setattr(tracefs, "_tracefs", lambda: tmp_path / "absent")
    refused(disk, "absent")


def test_a_device_whose_requests_are_not_traced_is_compared(
    served: Callable[..., Disk], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = served()
    monkeypatch.setattr(dirty_tracking, "DONE", ("block_bio_complete",))  # loop devices have a queue
    said: list[str] = []
    assert isinstance(dirty_tracking.track(disk, said.append), Unwatched)
    assert "does not trace" in said[0]
