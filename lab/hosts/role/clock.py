"""The hosts' clocks: a guest that is moved takes the new host's, so they must agree before a downtime is read.

A clock is read by asking for it over a channel that is open already, a few times; the quickest answer counts, and
half the time it took is how wrong it can be. A dom0 that sets its clock sets Xen's, which guests resume with.
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
    """Seconds by which a host's clock is ahead of this machine's, and how wrong that can be."""

    ahead: float
    uncertain: float


def read(node: Node) -> Reading:
    """Raises CommandError."""
    words = ["sh", "-c", "while read -r _; do date +%s.%N; done"]
    with node.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as asked:
        assert asked.stdin is not None and asked.stdout is not None
        try:
            readings = []
            for _ in range(_ASKED):
                before = time.time()
                asked.stdin.write(b"\n")
                theirs = float(asked.stdout.readline())
                after = time.time()
                readings.append(Reading(theirs - (before + after) / 2, (after - before) / 2))
        except (OSError, ValueError):
            raise CommandError(f"{node.name}: its clock cannot be read") from None
        finally:
            asked.stdin.close()
    return min(readings, key=lambda reading: reading.uncertain)


def set_right(node: Node) -> None:
    """Set the clock of `node` to this machine's. Raises CommandError."""
    node.check(["python3", "-c", _SET, f"{-read(node).ahead:.6f}"])


def difference(one: Node, other: Node) -> Reading:
    """By how much the clock of `other` is ahead of that of `one`. Raises CommandError."""
    a, b = read(one), read(other)
    return Reading(b.ahead - a.ahead, a.uncertain + b.uncertain)
