"""Touch and hold free memory, so that every run finds memory that costs the same.

The host of a virtual machine takes free pages back after seconds, and the next touch of each costs CPU time that is
not counted as steal: 2.5 s for each gigabyte were measured. So the memory that a run needs is touched right before
it, and the rest is held, or it would have to be touched again and again.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_RESERVE = 512 << 20  # bytes left to the rest of the system


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
    """Hold all free memory but `needed` bytes while the block runs."""
    ballast = _touched(_free() - needed - _RESERVE)
    try:
        yield
    finally:
        if ballast is not None:
            ballast.close()


def touch(needed: int) -> None:
    """Touch `needed` bytes of free memory, or all of it if there is less."""
    ballast = _touched(min(needed, _free() - _RESERVE))
    if ballast is not None:
        ballast.close()
