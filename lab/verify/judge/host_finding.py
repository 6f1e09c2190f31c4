"""What the search for secrets on a host (`leaks.py`, which runs there) found."""

from __future__ import annotations

from dataclasses import dataclass, field

_NEEDED = {
    "processes": ("processes",),
    "files": ("files",),
    "journal or syslog": ("bytes of journal", "bytes of syslog"),
    "xenstore": ("bytes of xenstore",),
}


@dataclass(frozen=True)
class HostFinding:
    """The result for one host. `leaks`: pairs of place and secret; `places`: kind of place -> how many were
    searched; `unread`: kind of place -> how many could not be read."""

    leaks: list[list[str]]
    places: dict[str, int]
    unread: dict[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """The kinds of places that may hold a secret and of which none was searched."""
        return [name for name, kinds in _NEEDED.items() if not any(self.places.get(kind) for kind in kinds)]
