"""The most recent bytes of TCP streams, kept to compare retransmissions with."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

RECENT_LIMIT = 1 << 22  # bytes kept per direction
ALL_RECENT_LIMIT = 1 << 24  # bytes kept of all directions
OVERHEAD = 100  # bytes of memory that a piece takes beside its data


@dataclass
class BufferUse:
    """Bytes of memory that all directions use together: for segments that came `early`, and for `recent` bytes."""

    early: int = 0
    recent: int = 0


class RecentBytes:
    """The most recent bytes of one direction, within the limits of this module."""

    def __init__(self, use: BufferUse) -> None:
        self._use = use
        self._pieces: deque[tuple[int, bytes]] = deque()  # (position of the first byte, bytes), in order
        self._size = 0

    def add(self, position: int, data: bytes) -> None:
        """Append bytes; `position` is the end of all earlier ones or, after a hole, greater."""
        self._pieces.append((position, data))
        self._count(len(data) + OVERHEAD)
        while self._pieces and (self._size > RECENT_LIMIT or self._use.recent > ALL_RECENT_LIMIT):
            self._count(-len(self._pieces.popleft()[1]) - OVERHEAD)

    def differing(self, position: int, data: bytes) -> int | None:
        """Return how many bytes of `data` differ from those kept for `position`. None: no kept byte differs, but
        some are no longer kept."""
        end = position + len(data)
        known = differing = 0
        for begin, piece in reversed(self._pieces):
            if begin + len(piece) <= position:
                break
            low, high = max(begin, position), min(begin + len(piece), end)
            if low < high:
                known += high - low
                before, now = piece[low - begin : high - begin], data[low - position : high - position]
                if before != now:
                    differing += sum(one != other for one, other in zip(before, now, strict=True))
        return differing if differing or known == len(data) else None

    def clear(self) -> None:
        """Forget all bytes."""
        self._pieces.clear()
        self._count(-self._size)

    def _count(self, count: int) -> None:
        self._size += count
        self._use.recent += count
