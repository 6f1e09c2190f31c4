"""Compares and sets the hosts' clocks.

A migrated guest takes over the new host's clock, so the clocks must agree for a downtime to be measured. A clock is
read several times over a channel that is already open. The quickest answer counts, and half of the time that it
took is the uncertainty. When a dom0 sets its clock, it also sets Xen's, with which guests resume.
"""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass

from lab.errors import CommandError
from lab.hosts.interface import Node

_ASKED = 8
_SET = "import sys, time; time.clock_settime(time.CLOCK_REALTIME, time.time() + float(sys.argv[1]))"


@dataclass(frozen=True)
class Reading:
    """By how many seconds a host's clock is ahead of another one, and the uncertainty of that in seconds."""

    ahead: float
    uncertain: float


def read(node: Node) -> Reading:
    """Compare the clock of `node` with this machine's. Raises CommandError."""
    words = ["sh", "-c", "while read -r _; do date +%s.%N; done"]
    with node.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as remote:
        assert remote.stdin is not None and remote.stdout is not None
        try:
            readings = []
            for _ in range(_ASKED):
                before = time.time()
                remote.stdin.write(b"\n")
                theirs = float(remote.stdout.readline())
                after = time.time()
                readings.append(Reading(theirs - (before + after) / 2, (after - before) / 2))
        except (OSError, ValueError):
            raise CommandError(f"{node.name}: its clock cannot be read") from None
        finally:
            remote.stdin.close()
    return min(readings, key=lambda reading: reading.uncertain)


def set_right(node: Node) -> None:
    """Set the clock of `node` to this machine's. Raises CommandError."""
    node.check(["python3", "-c", _SET, f"{-read(node).ahead:.6f}"])


def difference(one: Node, other: Node) -> Reading:
    """Return by how much the clock of `other` is ahead of that of `one`. Raises CommandError."""
    a, b = read(one), read(other)
    return Reading(b.ahead - a.ahead, a.uncertain + b.uncertain)
