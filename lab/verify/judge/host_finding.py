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
    """What a host showed. `leaks`: [where, what]; `places`: kind of place -> how many were looked at; `unread`: how
    many could not be read."""

    leaks: list[list[str]]
    places: dict[str, int]
    unread: dict[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """Where a secret may be and nothing was looked at."""
        return [name for name, kinds in _NEEDED.items() if not any(self.places.get(kind) for kind in kinds)]
