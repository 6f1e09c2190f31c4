"""The identity of a process, which survives in a file: pid, start time and boot id together, so that a reused pid
or a restarted host is never taken for the same process."""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass

from xenplugin.errors import OwnershipError


@dataclass(frozen=True)
class Process:
    """A process. `start`: its start time as in /proc/PID/stat (clock ticks since boot); `boot`: the kernel's boot
    id."""

    pid: int
    start: int
    boot: str

    @property
    def alive(self) -> bool:
        """Whether this process still runs; False for a zombie."""
        return self.boot == boot_id() and _started(self.pid) == self.start

    @property
    def mine(self) -> bool:
        """Whether it is the calling process."""
        return self.pid == os.getpid() and self.alive

    @property
    def words(self) -> list[str]:
        """Its command line, from the program's name on; empty if it has ended."""
        try:
            with open(f"/proc/{self.pid}/cmdline", "rb") as file:
                return [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
        except OSError:
            return []

    def end(self, patience: float) -> None:
        """End it: SIGTERM, and SIGKILL if it has not ended after `patience` seconds. Does nothing if it has ended.
        Raises OwnershipError if it does not end then either, or if the caller may not signal it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                fd = os.pidfd_open(self.pid)
            except ProcessLookupError:
                return
            try:
                if not self.alive:  # checked with the descriptor open: that is this process, or one that has ended
                    return
                signal.pidfd_send_signal(fd, number)
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                if poll.poll(1000 * patience):
                    return
            except ProcessLookupError:
                return
            except PermissionError:
                raise OwnershipError(
                    f"there is no permission to end process {self.pid}", hint="run this as root"
                ) from None
            finally:
                os.close(fd)
        raise OwnershipError(f"process {self.pid} cannot be ended")


def process(pid: int) -> Process:
    """Return the process that has this pid now. Raises OwnershipError if there is none."""
    start = _started(pid)
    if start is None:
        raise OwnershipError(f"process {pid} has ended")
    return Process(pid, start, boot_id())


def ancestor(name: str) -> Process:
    """Return the nearest ancestor of this process that the kernel knows as `name`, or the parent if there is none.
    (Shells that wait for this process may stand between.) Raises OwnershipError if it has ended."""
    pid = os.getppid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                front, _, back = file.read().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            break
        if front.partition("(")[2] == name:
            return process(pid)
        pid = int(back.split()[1])
    return process(os.getppid())


def boot_id() -> str:
    """Return the kernel's id of the current boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _started(pid: int) -> int | None:
    """Return the start time of process `pid` in clock ticks since boot; None if there is none, or it is a
    zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # its name may hold anything, parentheses too
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
