"""Interface for dirty-chunk tracking, and a fallback for when tracking is unavailable."""

from __future__ import annotations

from typing import Protocol


class Changes(Protocol):
    """Tracks which chunks of one disk are written to, from its creation on."""

    def drain(self) -> set[int] | None:
        """Return the chunks written to since the last call, by writes that began before this one.

        None: unknown, because events were lost or cannot be had; every chunk must be compared.
        """

    def close(self) -> None:
        """Stop tracking."""


class Unwatched:
    """Fallback without tracking: every chunk must be compared, each time."""

    def drain(self) -> None:
        return None

    def close(self) -> None:
        pass
