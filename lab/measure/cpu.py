"""CPU time by origin: the way that is measured, IPsec in user space, and all other programs.

Strategy: while it measures, this process is in a control group of its own (cgroup v2, whose time is counted
whether or not a controller is enabled), and so are all its descendants. charon, which carries ESP in user space,
is counted apart by its pid; the emulator belongs to the lab's keeper, outside the group. The rest of the
machine's CPU time was used by other programs: the more of it, the less a run is worth.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Used:
    """Seconds of one core since an arbitrary start. `own`: this process's group without IPsec; None: no group."""

    machine: float
    own: float | None
    ipsec: float

    def since(self, before: Used) -> Used:
        """Return what was used since `before`."""
        own = None if self.own is None or before.own is None else self.own - before.own
        return Used(self.machine - before.machine, own, self.ipsec - before.ipsec)


class Meter:
    """Reads CPU times. `group`: the directory of the control group, if there is one."""

    def __init__(self, group: Path | None) -> None:
        self._group = group

    def read(self, ipsec: Iterable[int]) -> Used:
        """Return the CPU time used so far; `ipsec`: the pids of IPsec's processes."""
        pids, own = list(ipsec), None
        if self._group is not None:
            lines = (self._group / "cpu.stat").read_text(encoding="ascii").splitlines()
            stat = dict(line.split() for line in lines)
            inside = (self._group / "cgroup.procs").read_text(encoding="ascii").split()
            own = int(stat["usage_usec"]) / 1e6 - sum(_process(pid) for pid in pids if str(pid) in inside)
        return Used(_machine(), own, sum(map(_process, pids)))


@contextmanager
def metered() -> Iterator[Meter]:
    """Keep this process and its descendants in a group of their own during the block, if the machine allows it."""
    home, group = _home(), None
    try:
        if home is not None:
            group = home / f"xenlab-{os.getpid()}"
            try:
                group.mkdir()
                _move(group)
            except OSError:
                with suppress(OSError):
                    group.rmdir()
                group = None
        yield Meter(group)
    finally:
        if home is not None and group is not None:
            with suppress(OSError):
                for pid in (group / "cgroup.procs").read_text(encoding="ascii").split():
                    _move(home, pid)
                group.rmdir()


def _home() -> Path | None:
    """Return the directory of this process's group; None without cgroup v2."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        mounts = [line.split() for line in file]
    top = next((words[1] for words in mounts if words[2] == "cgroup2"), None)
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        place = next((line.split(":", 2)[2].strip() for line in file if line.startswith("0::")), None)
    return Path(top + place) if top is not None and place is not None else None


def _move(group: Path, pid: str = "0") -> None:
    (group / "cgroup.procs").write_text(pid, encoding="ascii")


def _machine() -> float:
    """Return the seconds that all CPUs were busy: user, nice, system, interrupts (proc(5))."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / _TICKS


def _process(pid: int) -> float:
    """Return the CPU seconds of all threads of a process.

    Not from its ticks (/proc/PID/stat): they miss half or more of a process that works for a moment at each packet.
    """
    seconds = 0.0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):  # it has ended
            seconds += int(task.read_text(encoding="ascii").split()[0]) / 1e9
    return seconds


def children_seconds() -> float:
    """Return the CPU seconds of all children that were waited for, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
