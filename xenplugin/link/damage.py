"""Decides when data connections have brought too many damaged records to go on.

A record that does not authenticate costs its connection only (docs/wire-format.md, section 8). One in a while is
what a failing network card makes of a large image; several in a row mean that going on is useless, or that somebody
on the path changes what passes.
"""

from __future__ import annotations

import threading
from collections import deque

from xenplugin.errors import RESUME_HINT, TamperError
from xenplugin.link import tcp

#: A session ends when this many connections were damaged while fewer than _WITHIN bytes were delivered.
_LIMIT, _WITHIN = 3, 64 << 20


class Damaged(ConnectionError):
    """A record did not authenticate on a connection; the text says at which side."""


class DamageLimit:
    """Counts damaged connections. Thread-safe."""

    def __init__(self) -> None:
        self._places: deque[int] = deque(maxlen=_LIMIT)
        self._checksums = tcp.checksum_errors()
        self._lock = threading.Lock()

    def add(self, delivered: int) -> None:
        """Note a damaged connection, when `delivered` bytes had arrived in all. Raises TamperError if that is one
        too many."""
        with self._lock:
            self._places.append(delivered)
            if len(self._places) == _LIMIT and delivered - self._places[0] < _WITHIN:
                raise self._too_many()

    def _too_many(self) -> TamperError:
        """Return the error, with a hint that tells damage from an attack by what TCP's own checksums have found."""
        wrong = tcp.checksum_errors() - self._checksums
        if wrong > 0:
            cause = (
                f"{wrong} packets came with wrong TCP checksums as well: a network card, a cable or a router on the"
                " path is failing"
            )
        else:
            cause = (
                "no packet came with a wrong TCP checksum: either a network card damages data before it makes the"
                " checksum (try `ethtool -K DEV tx off rx off` on both hosts), or somebody on the path changes it"
            )
        return TamperError(
            f"{_LIMIT} data connections brought damaged records within {_WITHIN >> 20} MiB",
            hint=f"{cause}; {RESUME_HINT}",
        )
