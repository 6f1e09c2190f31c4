"""Searches the Xen hosts of a running lab for readable secrets (lab.verify.judge.leaks)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.errors import CommandError, LabError, LabUsageError
from lab.hosts.interface import Node, Provider
from lab.hosts.topology import HOSTS
from lab.verify.judge import leaks
from lab.verify.judge.host_finding import HostFinding

_SECONDS = 600.0  # for the logs of a host; under emulation a journal takes minutes


def look_at_hosts(provider: Provider, seconds: float) -> dict[str, HostFinding]:
    """Search both hosts in parallel. What exists only while a guest is migrated is watched for `seconds`. Raises
    LabError, LabUsageError."""
    if not provider.abilities.xen:
        raise LabUsageError("the hosts of this lab are namespaces, which share this machine's files and processes")
    nodes = provider.nodes()
    for host in HOSTS:
        if host.name not in nodes:
            raise LabError(f"{host.name} does not run", hint="xenlab up")
    with ThreadPoolExecutor(len(HOSTS)) as pool:
        found = {host.name: pool.submit(_look, nodes[host.name], seconds) for host in HOSTS}
        return {name: each.result() for name, each in found.items()}


def _look(node: Node, seconds: float) -> HostFinding:
    program = Path(leaks.__file__).read_text(encoding="utf-8")
    output = node.check(["python3", "-", str(seconds)], program, timeout=_SECONDS + seconds)
    try:
        return HostFinding(**json.loads(output))
    except (ValueError, TypeError):
        raise CommandError(f"{node.name}: the search for secrets ended with {output[-200:]!r}") from None
