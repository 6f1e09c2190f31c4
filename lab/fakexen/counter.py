"""The process of a counter guest: it writes a counter to its disks without end, and checks what is on them.

    counter.py WORLD HOST UUID MEMORY COUNTER PATH:WRITABLE...

Write number n goes to slot n % SLOTS of each writable disk. When a guest starts, it must have been stopped after
the last write that was made anywhere (`WORLD/UUID.truth`), find every slot of its disks as that write left it, and
be the only running guest with its uuid (a lock). One with the counter 0 boots, and remembers nothing; for its disks
the same holds. Otherwise it adds a line to `WORLD/violations`. On a suspend
request (SIGTERM) it writes its counter to MEMORY and ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import sys

SLOTS = 64
PAGE = 4096
PAUSE = 0.004


def content(number: int) -> bytes:
    """Return what write `number` writes."""
    return b"%032d" % number + hashlib.sha256(b"%d" % number).digest() * 127


def place(slot: int, size: int) -> int:
    """Return where a slot is on a disk of `size` bytes; all are in its first quarter."""
    return slot * (size // PAGE // SLOTS // 4) * PAGE


def expected(slot: int, counter: int) -> bytes | None:
    """Return what a slot holds after write `counter`; None if it was never written."""
    last = counter - (counter - slot) % SLOTS
    return content(last) if last > 0 else None


def main(world: str, host: str, uuid: str, memory: str, start: str, *disks: str) -> None:
    """Run the guest until it is suspended."""

    def violated(what: str) -> None:
        with open(os.path.join(world, "violations"), "a") as file:
            file.write(f"{uuid} on {host} at {start}: {what}\n")

    counter = int(start)
    lock = os.open(os.path.join(world, f"{uuid}.runs"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        violated("a second one runs")
        return
    truth = os.open(os.path.join(world, f"{uuid}.truth"), os.O_RDWR | os.O_CREAT, 0o600)
    before = int(os.pread(truth, 20, 0) or b"0")
    counter = counter or before
    if before != counter:
        violated(f"it remembers {counter} writes, there were {before}")
    files = []
    for path, writable in (disk.rsplit(":", 1) for disk in disks):
        fd = os.open(path, os.O_RDWR if writable == "1" else os.O_RDONLY)
        size = os.lseek(fd, 0, os.SEEK_END)  # a block device's as well
        if writable != "1":
            continue
        files.append((fd, size))
        for slot in range(SLOTS):
            wanted = expected(slot, counter)
            if wanted and os.pread(fd, PAGE, place(slot, size)) != wanted:
                violated(f"{path} has lost a write in slot {slot}")
    while not signal.sigtimedwait({signal.SIGTERM}, PAUSE):
        counter += 1
        for fd, size in files:
            os.pwrite(fd, content(counter), place(counter % SLOTS, size))
        os.pwrite(truth, b"%020d" % counter, 0)
    with open(memory, "w") as file:
        file.write(str(counter))


if __name__ == "__main__":
    main(*sys.argv[1:])
