"""The conditions of the run: the machine, the kernel, the programs, and reasons for doubt."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from demo.bench import Outcome
from lab.measure import programs
from lab.measure.results import Host

_LATE = 0.02  # seconds for one packet in a hundred
_STOLEN = 0.1  # share of all CPU time


def host() -> dict[str, str]:
    """Return a description of this machine."""
    here = Host.here()
    return {
        "processor": f"{here.cpu or platform.machine()}, {here.cores} cores",
        "memory": f"{here.memory / 2**30:.0f} GiB",
        "system": _field("/etc/os-release", r'PRETTY_NAME="?([^"\n]+)') or "Linux",
        "kernel": here.kernel,
        "congestion control": _field("/proc/sys/net/ipv4/tcp_congestion_control", r"(\w+)"),
    }


def versions() -> dict[str, str]:
    """Return the versions of the programs that were run, by name; those not installed are left out."""
    return {"python": platform.python_version(), **programs.versions()}


def doubts(outcomes: list[Outcome]) -> list[str]:
    """Return reasons for doubt, a sentence each: a late link, stolen CPU time, packets not recorded."""
    lines = []
    for outcome in outcomes:
        late = outcome.traffic.late_p99 if outcome.traffic else None
        if late is not None and late > _LATE:
            lines.append(f"{outcome.title}: one packet in a hundred was more than {late * 1000:.0f} ms late")
        if outcome.steal > _STOLEN:
            lines.append(f"{outcome.title}: the hypervisor took {outcome.steal:.0%} of the CPU time")
        if outcome.unrecorded:
            lines.append(f"{outcome.title}: {outcome.unrecorded} packets are not in the capture")
    if lines:
        lines.append("the machine was busy: repeat the run when it is not")
    return lines


def _field(path: str, pattern: str) -> str:
    try:
        match = re.search(pattern, Path(path).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return ""
    return match[1].strip() if match else ""
