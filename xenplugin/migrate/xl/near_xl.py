"""The near xl as seen from its transport: its protocol's bytes over a pair of descriptors."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator

from xenplugin.errors import PeerError

_READ = 1 << 20
#: Seconds between two calls of `check` while xl sends nothing.
_TICK = 0.1
#: Seconds without a byte from xl after which what came before is sent on, though it does not fill a segment.
_IDLE = 0.02


class NearXl:
    """xl writes to the descriptor `source` and reads from `sink`. `read` and `write` may run in different
    threads."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink
        self._nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)  # now: the end must not lack a descriptor
        self._poll = select.poll()
        self._poll.register(source, select.POLLIN)

    def read(self, check: Callable[[], None], idle: Callable[[], None]) -> Iterator[bytes]:
        """Yield what xl sends, until it closes its end. `check` is called often, to raise what ends the migration;
        `idle` once whenever xl pauses."""
        paused = True
        while True:
            check()
            if not self._poll.poll(1000 * (_TICK if paused else _IDLE)):
                if not paused:
                    idle()
                    paused = True
                continue
            data = os.read(self._source, _READ)
            if not data:
                return
            paused = False
            yield data

    def write(self, data: bytes) -> None:
        """Send `data` to xl. Raises PeerError if xl has ended."""
        view = memoryview(data)
        try:
            while len(view):
                view = view[os.write(self._sink, view) :]
        except OSError:
            raise PeerError("xl on this host has ended") from None

    def disconnect(self) -> None:
        """Close both directions: xl sees the end of its protocol, and resumes the guest if it still has it."""
        # The numbers stay taken: another thread may be about to write to one of them.
        os.dup2(self._nowhere, self._source, inheritable=False)
        os.dup2(self._nowhere, self._sink, inheritable=False)
