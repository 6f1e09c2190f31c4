"""An incremental parser: bytes in, events out, however the bytes are cut. Pure.

A format is written as a generator that reads like the format itself: `yield n` returns the next n bytes,
`yield -n` skips n bytes without keeping them. Memory use is bounded by the largest n.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Generic, TypeAlias, TypeVar

E = TypeVar("E")
Steps: TypeAlias = Generator[int, bytes, None]


class IncrementalParser(Generic[E]):
    """Runs the generator that `grammar` returns for this parser. `at`: bytes consumed so far."""

    def __init__(self, grammar: Callable[[IncrementalParser[E]], Steps]) -> None:
        self.at = 0
        self.events: list[E] = []  #: the grammar appends to this; `feed` returns it
        self._have = bytearray()
        self._steps = grammar(self)
        self._want = next(self._steps)

    def feed(self, data: bytes | bytearray | memoryview) -> list[E]:
        """Return the events that the next bytes complete. Raises what the grammar raises."""
        view = memoryview(data)
        while len(view):
            if self._want < 0:
                count = min(len(view), -self._want)
                self._want += count
            else:
                count = min(len(view), self._want - len(self._have))
                self._have += view[:count]
            self.at += count
            view = view[count:]
            if self._want == len(self._have):  # everything that was asked for is here, or skipped
                have, self._have = bytes(self._have), bytearray()
                self._want = self._steps.send(have)
        events, self.events = self.events, []
        return events
