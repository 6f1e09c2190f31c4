"""The Xen hosts of a lab that runs, searched for secrets that lie open there (lab.verify.judge.leaks)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lab.errors import CommandError, LabError, LabUsageError
from lab.hosts.provider.base import Node, Provider
from lab.hosts.topology import HOSTS
from lab.verify.judge import leaks

_NEEDED = {
    "processes": ("processes",),
    "files": ("files",),
    "journal or syslog": ("bytes of journal", "bytes of syslog"),
    "xenstore": ("bytes of xenstore",),
}
_SECONDS = 600.0  # for the logs of a host; under emulation a journal takes minutes


@dataclass(frozen=True)
class Looked:
    """What a host showed. `leaks`: [where, what]; `places`: kind of place -> how many were looked at; `unread`: how
    many could not be read."""

    leaks: list[list[str]]
    places: dict[str, int]
    unread: dict[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """Where a secret may be and nothing was looked at."""
        return [name for name, kinds in _NEEDED.items() if not any(self.places.get(kind) for kind in kinds)]


def look_at_hosts(provider: Provider, seconds: float) -> dict[str, Looked]:
    """Search both hosts side by side, what is there only while a guest moves for `seconds`. Raises LabError,
    LabUsageError."""
    if not provider.abilities.xen:
        raise LabUsageError("the hosts of this lab are namespaces: what they would show is this machine's")
    nodes = provider.nodes()
    for host in HOSTS:
        if host.name not in nodes:
            raise LabError(f"{host.name} does not run", hint="xenlab up")
    with ThreadPoolExecutor(len(HOSTS)) as pool:
        found = {host.name: pool.submit(_look, nodes[host.name], seconds) for host in HOSTS}
        return {name: each.result() for name, each in found.items()}


def _look(node: Node, seconds: float) -> Looked:
    program = Path(leaks.__file__).read_text(encoding="utf-8")
    said = node.check(["python3", "-", str(seconds)], program, timeout=_SECONDS + seconds)
    try:
        return Looked(**json.loads(said))
    except (ValueError, TypeError):
        raise CommandError(f"{node.name}: the search for secrets ended with {said[-200:]!r}") from None
