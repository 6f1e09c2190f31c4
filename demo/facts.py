"""What the numbers were measured on: the machine, the kernel, the programs, and how punctual all that was."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from demo.bench import Outcome

_LATE = 0.02  # seconds for one packet in a hundred
_STOLEN = 0.1  # share of all CPU time
_PROGRAMS = {
    "ssh": ["ssh", "-V"],
    "openssl": ["openssl", "version"],
    "gzip": ["gzip", "--version"],
    "zstd": ["zstd", "--version"],
    "rsync": ["rsync", "--version"],
}


def host() -> dict[str, str]:
    """The machine, in words."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    processor = _field("/proc/cpuinfo", r"model name\s*:\s*(.+)") or platform.machine()
    return {
        "processor": f"{processor}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "system": _field("/etc/os-release", r'PRETTY_NAME="?([^"\n]+)') or "Linux",
        "kernel": platform.release(),
        "congestion control": _field("/proc/sys/net/ipv4/tcp_congestion_control", r"(\w+)"),
    }


def programs() -> dict[str, str]:
    """Versions of what was run; what is missing is not there."""
    found = {"python": platform.python_version()}
    for name in ("xenplugin", "scapy", "cryptography", "zstandard"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    for name, words in _PROGRAMS.items():
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        match = re.search(r"v?(\d+\.\d[\w.]*)", done.stdout + done.stderr)
        if match:
            found[name] = match[1]
    return found


def doubts(outcomes: list[Outcome]) -> list[str]:
    """Why these numbers should not be believed, if so: lateness of the link, CPU time stolen, packets lost."""
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
