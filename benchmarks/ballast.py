"""Memory that costs nothing to use, for every run alike.

A virtual machine's host takes free pages back after seconds, and hands them out again at the first touch: 2.5 s
of CPU for each gigabyte were seen, not counted as steal, enough to double the time of whatever is measured.
Strategy: nearly all free memory is touched and held while the benchmarks run, and what is left free is touched
right before each run.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_LEFT = 6 << 30
_KEPT = 512 << 20


def _free() -> int:
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemFree:"))


def _touched(size: int) -> mmap.mmap | None:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    if size <= 0:
        return None
    with suppress(OSError):
        return mmap.mmap(-1, size, flags=flags)
    return None


@contextmanager
def held() -> Iterator[None]:
    """Keep all memory but 6 GiB, which benchmarks use."""
    held = _touched(_free() - _LEFT)
    try:
        yield
    finally:
        if held is not None:
            held.close()


def touch() -> None:
    """Have what is free touched."""
    free = _touched(_free() - _KEPT)
    if free is not None:
        free.close()
