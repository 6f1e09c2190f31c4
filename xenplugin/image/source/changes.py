"""Which chunks of a disk were written to while it is copied: what a live copy asks, and the answer of who cannot
say."""

from __future__ import annotations

from typing import Protocol


class Changes(Protocol):
    """Watches the writes to one disk, from its making on."""

    def drain(self) -> set[int] | None:
        """The chunks written to since the last call, as far as the writes have begun before this one; None: events
        were lost or are not known, every chunk must be compared."""

    def close(self) -> None:
        """Watch no more."""


class Unwatched:
    """Knows nothing: every chunk is compared, each time."""

    def drain(self) -> None:
        return None

    def close(self) -> None:
        pass
