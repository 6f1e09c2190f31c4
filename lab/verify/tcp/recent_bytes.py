"""The last bytes of TCP streams, to tell whether what is sent again is what it was."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

LAST = 1 << 22  # bytes kept of a direction
ALL_LAST = 1 << 24  # bytes kept of all directions
OVERHEAD = 100  # bytes that a piece takes beside its own


@dataclass
class Room:
    """How many bytes are kept, of all directions that share it: of those that came `early`, and the `last` ones."""

    early: int = 0
    last: int = 0


class Recent:
    """The last bytes of one direction, as many as there is room for."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._pieces: deque[tuple[int, bytes]] = deque()  # where each begins; in order
        self._size = 0

    def add(self, place: int, data: bytes) -> None:
        """Bytes from `place` on, behind all before."""
        self._pieces.append((place, data))
        self._count(len(data) + OVERHEAD)
        while self._pieces and (self._size > LAST or self._room.last > ALL_LAST):
            self._count(-len(self._pieces.popleft()[1]) - OVERHEAD)

    def differing(self, place: int, data: bytes) -> int | None:
        """How many bytes of `data` are not what was at `place`; None: none that is known, but not all are known."""
        end = place + len(data)
        known = differing = 0
        for begin, piece in reversed(self._pieces):
            if begin + len(piece) <= place:
                break
            low, high = max(begin, place), min(begin + len(piece), end)
            if low < high:
                known += high - low
                before, now = piece[low - begin : high - begin], data[low - place : high - place]
                if before != now:
                    differing += sum(one != other for one, other in zip(before, now, strict=True))
        return differing if differing or known == len(data) else None

    def clear(self) -> None:
        """Keep none."""
        self._pieces.clear()
        self._count(-self._size)

    def _count(self, count: int) -> None:
        self._size += count
        self._room.last += count
