"""Block events of the kernel's trace, and which chunks of a disk they change. Pure.

A chunk whose write was submitted but is not done yet may be read too early. So chunks with writes under way are
reported once more by the next `drain()`. If events were lost or cannot be parsed, the tally reports that it does
not know."""

from __future__ import annotations

import re
from dataclasses import dataclass

from xenplugin.geometry import CHUNK, chunk_count

SECTOR = 512
#: Tracepoints: a request is submitted; it is done (the second for devices without a queue of their own).
QUEUED, DONE = "block_bio_queue", ("block_rq_complete", "block_bio_complete")
#: Chunks (512 GiB) above which comparing all of them costs no more than remembering them.
_MOST = 1 << 19
_LINE = re.compile(
    rf"({QUEUED}|{'|'.join(DONE)}): ([0-9]+),([0-9]+) ([A-Z]+) (?:\(.*\) )?([0-9]+) \+ ([0-9]+) .*\[.*\]"
)


@dataclass(frozen=True)
class BlockEvent:
    """A request was submitted (`queued`) or is done, wholly or in part. `device` is (major, minor); `kind` the
    kernel's letters, as "WS"; `sector` and `count` are in units of 512 bytes."""

    queued: bool
    device: tuple[int, int]
    kind: str
    sector: int
    count: int


def parse(line: str) -> BlockEvent | None:
    """Parse a line of trace_pipe without context-info. None for anything else, as "CPU:0 [LOST 9 EVENTS]"."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    point, major, minor, kind, sector, count = match.groups()
    return BlockEvent(point == QUEUED, (int(major), int(minor)), kind, int(sector), int(count))


class DirtyTally:
    """The chunks that events change in an image of `size` bytes. `shift` bytes are added to an offset on the device
    to get the offset in the image."""

    def __init__(self, shift: int, size: int) -> None:
        self._shift = shift
        self._chunks = chunk_count(size)
        self._written: set[int] = set()
        self._under_way: dict[int, int] = {}  # sectors, by chunk
        self._again: set[int] = set()
        self._lost = False

    def add(self, event: BlockEvent | None) -> None:
        """Count the next line's event; None if that line cannot be parsed: events may be lost."""
        if event is None:
            self.lose()
            return
        begin = event.sector * SECTOR + self._shift
        end = begin + event.count * SECTOR
        first, last = max(0, begin // CHUNK), min(self._chunks, chunk_count(end))
        if event.kind.startswith("R") or first >= last:  # a read, or a flush without data
            return
        if len(self._written) + len(self._under_way) + last - first > _MOST:
            self.lose()
            return
        for chunk in range(first, last):
            sectors = (min(end, (chunk + 1) * CHUNK) - max(begin, chunk * CHUNK)) // SECTOR
            if event.queued:
                self._written.add(chunk)
                self._under_way[chunk] = self._under_way.get(chunk, 0) + sectors
                continue
            left = self._under_way.pop(chunk, 0) - sectors
            if left > 0:
                self._under_way[chunk] = left
            elif left < 0:  # done, but its submission was never seen
                self._lost = True

    def lose(self) -> None:
        """Note that events were lost: any chunk may have changed, and the writes under way are unknown."""
        self._lost = True
        self._written.clear()
        self._under_way.clear()

    def drain(self) -> set[int] | None:
        """Return the chunks that may have changed since the last call; None: any of them."""
        found = None if self._lost else self._written | self._again
        self._written, self._again, self._lost = set(), set(self._under_way), False
        return found
