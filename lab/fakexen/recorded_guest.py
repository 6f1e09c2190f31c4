"""The guest of experiments: a memory of full size from a file, and a disk that is written at a steady rate.

`guest.json` of a host describes the guest that leaves it. Its stream is a file (domain_stream.py), sent as it is.
At the destination the stream is copied to the file `memory`, as libxc copies it into a new domain's pages; it is
compared after the run, so that no digest costs time within it. `times.json` has when each step happened, in seconds
of this machine's monotonic clock, which all of its hosts share.

The disk is written while the guest runs: a page at a time, within a window, past the page cache as a backend does.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import threading
import time
from collections.abc import Generator
from typing import Any

from lab.fakexen.host import Domain, Host
from lab.fakexen.messages import BrokenPipe

#: A file of this name in the host's directory lets the guest write.
GO = "go"
_PIECE = 1 << 20
_PAGE = 4096
_PATIENCE = 120.0  # seconds that the guest may take to write once; it takes a fraction of one
#: The points that are noted, and what they are called in times.json.
_NOTED = {"s.start": "began", "s.suspended": "suspended", "r.read": "received", "r.started": "runs"}


class RecordedGuest:
    """See host.Guest. It runs within the xl that migrates it, since nothing else needs it to run."""

    def __init__(self) -> None:
        self._writer: _Writer | None = None

    def start(self, host: Host, domain: Domain) -> int:
        """Do nothing: it begins to write when it is migrated."""
        return 1

    def stop(self, host: Host, domain: Domain) -> int:
        """Stop writing."""
        if self._writer is not None:
            self._writer.stop()
        return 0

    def kill(self, host: Host, domain: Domain) -> None:
        """Do nothing: it ends with its xl."""

    def stream(self, host: Host, domain: Domain) -> Generator[bytes | memoryview, None, None]:
        """Yield the stream of guest.json, suspending the guest where the stream says so."""
        with open(os.path.join(host.root, "guest.json")) as about:
            guest = json.load(about)
        self._writer = writer = _Writer(guest, os.path.join(host.root, GO))
        try:
            with (
                open(guest["stream"], "rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream,
                memoryview(stream) as view,
            ):
                with view[: guest["suspended"]] as first:
                    yield first
                writer.await_first()
                host.suspend(domain["domid"])
                host.point("s.suspended")
                with view[guest["suspended"] :] as rest:
                    yield rest
        finally:
            writer.stop()

    def restore(self, host: Host, fd: int) -> int:
        """Copy the whole stream to the file `memory`, which has its size. Raises BrokenPipe if it ends before."""
        with (
            open(os.path.join(host.root, "memory"), "r+b") as file,
            mmap.mmap(file.fileno(), 0) as memory,
            memoryview(memory) as view,
        ):
            at = 0
            while at < len(view):
                with view[at : at + _PIECE] as room:
                    count = os.readv(fd, [room])
                if not count:
                    raise BrokenPipe(f"the stream ends after {at} bytes")
                at += count
        return 0


class _Writer:
    """Writes to the guest's disk from when the file `go` exists until `stop()`.

    Before that it does not open the disk. A real guest's disk is written by the kernel; the plugin looks for other
    processes that have it open, and would find this one.
    """

    def __init__(self, guest: dict[str, Any], go: str) -> None:
        self._stop, self._wrote = threading.Event(), threading.Event()
        self._go = go
        self._thread: threading.Thread | None = None
        if guest["disk"] is not None and guest["writes"]:
            self._thread = threading.Thread(target=self._work, args=(guest,), daemon=True)
            self._thread.start()

    def await_first(self) -> None:
        """Wait until the guest has written once: a small memory may be sent before the disk is watched."""
        if self._thread is not None:
            self._wrote.wait(_PATIENCE)

    def stop(self) -> None:
        """Return when the last write is done."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self, guest: dict[str, Any]) -> None:
        disk: str = guest["disk"]
        chance = random.Random(5)
        page = mmap.mmap(-1, _PAGE)
        # Writes are done in bursts, ten a second, at least one of them.
        burst = max(1, guest["writes"] // _PAGE // 10)
        while not os.path.exists(self._go):
            if self._stop.wait(0.01) and not os.path.exists(self._go):
                return
        fd = os.open(disk, os.O_WRONLY | (os.O_DIRECT if disk.startswith("/dev/") else 0))
        try:
            while True:
                for _ in range(burst):
                    page[: _PAGE // 2] = chance.randbytes(_PAGE // 2)  # the other half is easy to compress
                    at = guest["window_at"] + chance.randrange(guest["window"] // _PAGE) * _PAGE
                    os.pwrite(fd, page, at)
                self._wrote.set()
                if self._stop.wait(0.1):
                    return
        finally:
            os.close(fd)


def host(root: str, store: str | None = None) -> Host:
    """Return the host in `root` with such a guest; it notes in times.json when each step happens."""

    def note(point: str) -> None:
        if point in _NOTED:
            times = {**read_times(root), _NOTED[point]: time.monotonic()}
            path = os.path.join(root, "times.json")
            with open(path + ".new", "w") as file:
                json.dump(times, file)
            os.rename(path + ".new", path)

    return Host(root, RecordedGuest(), store, note)


def read_times(root: str) -> dict[str, float]:
    """Return when each step happened on the host in `root`, in seconds of the monotonic clock."""
    try:
        with open(os.path.join(root, "times.json")) as file:
            times: dict[str, float] = json.load(file)
    except FileNotFoundError:
        return {}
    return times


def clear(root: str) -> None:
    """Forget the domains and times of an earlier run on the host in `root`."""
    for name in ("state.json", "times.json", "guest.json", GO):
        if os.path.exists(path := os.path.join(root, name)):
            os.unlink(path)


def depart(host: Host, guest: dict[str, Any]) -> None:
    """Have a guest run on `host`, to be migrated away.

    Keys of `guest`: `config` (libxl's JSON); `stream` (a file) and `suspended` (the byte of it from which on the
    guest is suspended); `disk` (a path or None), written at `writes` bytes a second from `window_at` on within
    `window` bytes.
    """
    with open(os.path.join(host.root, "guest.json"), "w") as file:
        json.dump(guest, file)
    domain = host.make(guest["config"], guest["config"]["c_info"]["name"])
    host.furnish(domain["domid"], 0)
    host.unpause(domain["domid"])


def make_room(root: str, size: int) -> None:
    """Make the file for an arriving memory of `size` bytes; overwrite an existing one, so that it has pages."""
    path = os.path.join(root, "memory")
    with open(path, "r+b" if os.path.exists(path) else "w+b") as file:
        for at in range(0, size, _PIECE):
            file.write(bytes(min(_PIECE, size - at)))
        file.truncate(size)
