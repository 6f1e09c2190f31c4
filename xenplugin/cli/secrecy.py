"""Keeps what a process holds in memory, session secrets and a guest's data, out of core dumps."""

from __future__ import annotations

import contextlib
import ctypes
import resource

_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """Let neither a signal nor a crash write this process's memory to a file or to a program, and no other process
    of its user read it (prctl(2), PR_SET_DUMPABLE). What it starts (ssh, xl) writes no core file either."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
