"""Interface for dirty-chunk tracking, and a fallback for when tracking is unavailable."""

from __future__ import annotations

from typing import Protocol

from xenplugin.image.source.content_state import Change
from xenplugin.image.source.raw import Source


class Changes(Protocol):
    """Tracks which chunks of one disk are written to, from its creation on."""

    def drain(self) -> set[int] | None:
        """Return the chunks written to since the last call, by writes that began before this one.

        None: unknown, because events were lost or cannot be had; every chunk must be compared.
        """

    def close(self) -> None:
        """Stop tracking."""


class AtRest:
    """The changes of `source`, which nobody should write to, such as a CD image: none as long as it looks the
    same."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def drain(self) -> set[int] | None:
        return set() if self._source.change() is Change.SAME else None

    def close(self) -> None:
        pass


class Unwatched:
    """Fallback without tracking: every chunk must be compared, each time."""

    def drain(self) -> None:
        return None

    def close(self) -> None:
        pass
