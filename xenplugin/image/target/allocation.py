"""How a block device allocates its space, as /sys shows it.

A thin volume gets space for a unit of it when something is first written there, zeros as well. What was never
written to reads as zeros. So zeros need not be written where zeros are read. Two things can make such a volume a
trap, both of dm-thin:

- It cannot zero a range by itself (no WRITE ZEROES), and a discard frees whole units only. So what is to be zero is
  read first, whatever the device says of itself.
- A pool may be set not to zero new units (lvcreate --zero n). Then writing to a part of a unit brings old content
  of the pool into its rest, which read as zeros before. Within a chunk the rest is read after the write. If units
  go beyond chunks, zeros near what was written are looked at once more before the commit.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from glob import glob

from xenplugin.geometry import CHUNK

#: The largest unit that dm-thin has, in bytes.
_LARGEST = 1 << 30
_SYS = "/sys"


@dataclass(frozen=True)
class Allocation:
    """`sparse`: leaving out zeros within a chunk saves space. `reach`: so many chunks away from one that is written
    zeros may change."""

    sparse: bool
    reach: int

    @classmethod
    def of(cls, number: int) -> Allocation:
        """Return how the block device `number` allocates its space."""
        directory = f"{_SYS}/dev/block/{os.major(number)}:{os.minor(number)}"
        queue = directory if os.path.isdir(f"{directory}/queue") else f"{directory}/.."  # a partition has none
        unit = _number(f"{queue}/queue/discard_granularity")
        if not _number(f"{queue}/queue/discard_max_bytes"):
            # It discards nothing. A mapped device above another one may be a thin volume all the same.
            return cls(False, _LARGEST // CHUNK if glob(f"{directory}/slaves/dm-*") else 0)
        if unit and not CHUNK % unit and not _number(f"{directory}/discard_alignment"):
            return cls(True, 0)
        return cls(False, -(-unit // CHUNK))


def _number(path: str) -> int:
    """Return the number in the file at `path`; 0 if there is none."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0
