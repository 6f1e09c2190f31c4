"""Memory that the kernel and the zero test both like.

Strategy: O_DIRECT wants page-aligned memory, and the fastest zero test that the standard library has is
`bytearray.startswith(zeros, offset)` (a memcmp without a call through ctypes; 25-75 GB/s here, where
`memoryview ==` makes 1). A bytearray one page too long, used from its first page boundary on, is both. The
exported memoryview pins it: a bytearray with exports cannot move.
"""

from __future__ import annotations

import ctypes

from xenplugin.geometry import PAGE


class Buffer:
    """`size` bytes of zeroed, writable, page-aligned memory.

    `view` is how it is read and written. `store` and `base` are for the zero test only:
    byte i of the view is `store[base + i]`.
    """

    __slots__ = ("base", "store", "view")

    def __init__(self, size: int) -> None:
        self.store = bytearray(size + PAGE)
        self.base = -ctypes.addressof(ctypes.c_char.from_buffer(self.store)) % PAGE
        self.view = memoryview(self.store)[self.base : self.base + size]
