"""Processes named so that they can be recognised later: by pid, start time and boot, so that neither a pid that is
used again nor a restarted host deceives."""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass

from xenplugin.errors import OwnershipError


@dataclass(frozen=True)
class Process:
    """`start`: its start time as in /proc/PID/stat (clock ticks since boot); `boot`: the kernel's boot id."""

    pid: int
    start: int
    boot: str

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return self.boot == boot_id() and _started(self.pid) == self.start

    @property
    def mine(self) -> bool:
        """Whether it is the one that asks."""
        return self.pid == os.getpid() and self.alive

    @property
    def arguments(self) -> list[str]:
        """Its arguments, from the program's name on; none if it is gone."""
        try:
            with open(f"/proc/{self.pid}/cmdline", "rb") as file:
                return [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
        except OSError:
            return []

    def end(self, patience: float) -> None:
        """Ask it to end, and after `patience` seconds end it; a no-op if it is gone. Raises OwnershipError if it
        is there even then, or may not be ended."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                fd = os.pidfd_open(self.pid)
            except ProcessLookupError:
                return
            try:
                if not self.alive:  # looked at after the descriptor was opened: it names this one or a dead one
                    return
                signal.pidfd_send_signal(fd, number)
                if select.select([fd], [], [], patience)[0]:
                    return
            except ProcessLookupError:
                return
            except PermissionError:
                raise OwnershipError(f"process {self.pid} may not be ended", hint="run this as root") from None
            finally:
                os.close(fd)
        raise OwnershipError(f"process {self.pid} cannot be ended")


def process(pid: int) -> Process:
    """The process that has this pid now. Raises OwnershipError if there is none."""
    start = _started(pid)
    if start is None:
        raise OwnershipError(f"process {pid} is gone")
    return Process(pid, start, boot_id())


def ancestor(name: str) -> Process:
    """The nearest process above this one that is called `name`, as the kernel knows it; the parent if none is.
    (Shells may stand between, which wait for this one.) Raises OwnershipError if it is gone."""
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
    """The kernel's name for the time since the last start."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _started(pid: int) -> int | None:
    """Start time of process `pid` in clock ticks since boot; None if there is none, or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()  # its name may hold anything, parentheses too
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])
