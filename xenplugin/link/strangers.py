"""Keeps the connections that have not proved themselves yet: which one must leave, and when. Pure.

Their number is limited, and so is the number of each address. A new one takes the place of the oldest: of its own
address if that has as many as it may, else of the address that has most. So a flood displaces itself, and a peer
that proves itself soon gets in, also from the address of the flood.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Hashable
from typing import Generic, TypeVar

Stranger = TypeVar("Stranger", bound=Hashable)

#: Most strangers, and most of one address: a source opens up to 32 connections at a time, perhaps from behind the
#: address translation of somebody who floods the port.
MOST, MOST_OF_ONE = 128, 64
#: Seconds that a stranger may take to prove itself. A connection that was dialled ahead sends nothing until the
#: first one was welcomed; one that has to leave too soon is dialled again.
SECONDS = 10.0


class Strangers(Generic[Stranger]):
    """Strangers by age; times are seconds of any clock that does not go back. At most `most` are kept."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._held: dict[Stranger, tuple[str, float]] = {}  # the oldest first
        self._of: dict[str, dict[Stranger, None]] = {}  # those of each address, the oldest first

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, stranger: Stranger) -> bool:
        return stranger in self._held

    def add(self, stranger: Stranger, address: str, now: float) -> None:
        """Add a stranger that came from the IP address `address` just now."""
        origin = _origin(address)
        self._held[stranger] = origin, now
        self._of.setdefault(origin, {})[stranger] = None

    def surplus(self) -> Stranger | None:
        """Return the one that must leave because there are too many, if there are."""
        for of_one in self._of.values():
            if len(of_one) > MOST_OF_ONE:
                return next(iter(of_one))
        return self.oldest() if len(self._held) > self._most else None

    def oldest(self) -> Stranger | None:
        """Return the oldest of the address that has most; None if there is none."""
        most: dict[Stranger, None] = max(self._of.values(), key=lambda of_one: len(of_one), default={})
        return next(iter(most), None)

    def remove(self, stranger: Stranger) -> None:
        """Remove a stranger that has left, or is none any more."""
        origin, _ = self._held.pop(stranger)
        del self._of[origin][stranger]
        if not self._of[origin]:
            del self._of[origin]

    def expired(self, now: float) -> list[Stranger]:
        """Return those whose time is over."""
        late = []
        for stranger, (_, came) in self._held.items():
            if now - came < SECONDS:
                break
            late.append(stranger)
        return late

    def wait(self, now: float) -> float | None:
        """Return the seconds until the next one's time is over; None if there is none."""
        return max(0.0, next(iter(self._held.values()))[1] + SECONDS - now) if self._held else None


def _origin(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or an IPv6 network of 64 bits, of which one machine may
    have all addresses."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped) if ip.ipv4_mapped else ip.packed[:8].hex()
    return str(ip)
