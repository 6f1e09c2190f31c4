"""Memory that costs nothing to use, for every run alike.

A virtual machine's host takes free pages back after seconds, and hands them out again at the first touch: 2.5 s of
CPU for each gigabyte were seen, not counted as steal. So what a run will need is touched right before it, and what
nobody needs is held, or it would be touched again and again.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_KEPT = 512 << 20


def _free() -> int:
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemFree:"))


def _touched(size: int) -> mmap.mmap | None:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    if size > 0:
        with suppress(OSError):
            return mmap.mmap(-1, size, flags=flags)
    return None


@contextmanager
def held(needed: int) -> Iterator[None]:
    """Keep all free memory but `needed` bytes."""
    ballast = _touched(_free() - needed - _KEPT)
    try:
        yield
    finally:
        if ballast is not None:
            ballast.close()


def touch(needed: int) -> None:
    """Have `needed` bytes of what is free touched, or all."""
    ballast = _touched(min(needed, _free() - _KEPT))
    if ballast is not None:
        ballast.close()
