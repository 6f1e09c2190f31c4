"""Interfaces of the process at the other end of the control channel, as the source of a session uses it.

A RemoteProcess, which this host has started, or in a pull the process that has started this one.
"""

from __future__ import annotations

from typing import Protocol

from xenplugin.errors import XenpluginError
from xenplugin.link.endpoint import PipeEndpoint
from xenplugin.link.rate import Pacer


class Remote(Protocol):
    """The process at the other end of the control channel. `random`: its share of the keys."""

    random: bytes

    def address(self, ssh: str) -> str | None:
        """Return the likeliest address of the destination; None if it is not known."""

    def channel(self, pacer: Pacer | None) -> PipeEndpoint:
        """Return the control channel, which the caller closes."""

    def failure(self) -> XenpluginError:
        """Return why the channel ended."""

    def end(self, patience: float) -> object:
        """End it, after up to `patience` seconds."""


class Starting(Protocol):
    """A remote process that may still be starting."""

    def take(self) -> Remote:
        """Wait until it is ready and return it. Raises XenpluginError."""

    def close(self) -> None:
        """End it, unless it was taken."""
