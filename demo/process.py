"""Children of the demo: end them, and wait for all descendants, so that their CPU time counts.

The CPU time of a command and of all its descendants is added to that of our children when we wait for it
(lab.measure.cpu.children_seconds). Processes that are not waited for are not measured.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from netem.processes import wait_or_kill

_POLL = 0.1  # seconds
_GRACE = 3.0  # seconds between asking and forcing
_PR_SET_CHILD_SUBREAPER = 36


def stop(child: subprocess.Popen[Any]) -> None:
    """End one child by SIGTERM, then by SIGKILL. Harmless when it has ended."""
    child.terminate()
    wait_or_kill(child, _GRACE)


def adopt_orphans() -> None:
    """Make descendants whose parent has ended children of this process, not of init; see `reap_orphans`."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_of(pid: int) -> set[int]:
    """Return the children of process `pid`, from the parents of all processes.

    /proc/PID/task/PID/children is not readable for an sshd that protects itself from tracing.
    """
    children = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_bytes().rpartition(b")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        if parent == pid:
            children.add(int(path.parent.name))
    return children


def wait_for_children_of(pid: int, limit: float) -> None:
    """Wait until process `pid` has no children, `limit` seconds at most."""
    deadline = time.monotonic() + limit
    while children_of(pid) and time.monotonic() < deadline:
        time.sleep(_POLL)


def reap_orphans(known: set[int], limit: float) -> None:
    """Wait at most `limit` seconds for adopted children that are not in `known`, so that their CPU time counts."""
    deadline = time.monotonic() + limit
    while orphans := children_of(os.getpid()) - known:
        for pid in orphans:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if time.monotonic() > deadline:
            return
        time.sleep(_POLL)


def allocated(path: Path) -> int:
    """Return the bytes that the files in `path` occupy; files may come and go meanwhile."""
    total = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                except FileNotFoundError:
                    continue
    except FileNotFoundError:
        return 0
    return total
