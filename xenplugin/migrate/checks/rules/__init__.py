"""The rules: what the facts of both hosts mean for the guest's move. Pure.

Each rule yields at least one result for what it judges, also if it passes. A fact that is not known is a warning
with the reason, never a pass, and a single one: the rules that lack the same fact leave it to one of them. All
rules are always asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from xenplugin.migrate.checks.case import Case
from xenplugin.migrate.checks.rules import disks, guest, host
from xenplugin.results import CheckResult

Rule: TypeAlias = Callable[[Case], Iterator[CheckResult]]

#: Every check by its name, in the order in which they are shown (docs/migration.md, "Checks").
RULES: dict[str, Rule] = {
    "guest-state": guest.state,
    "nomigrate": guest.nomigrate,
    "guest-type": guest.guest_type,
    "suspend": guest.suspend,
    "devices": guest.devices,
    "memory-below-maximum": guest.memory_below_maximum,
    "migrating": guest.migrating,
    "version": host.version,
    "xen-version": host.xen_version,
    "cpu": host.cpu,
    "memory": host.memory,
    "vcpus": host.vcpus,
    "name": host.name,
    "bridges": host.bridges,
    "files": host.files,
    "state-directory": host.state_directory,
    "ports": host.ports,
    "clock": host.clock,
    "disk": disks.disk,
    "target": disks.target,
    "room": disks.room,
}
#: Those that may be wrong, so that `--force` can pass over them.
FORCIBLE = ("nomigrate", "devices", "xen-version", "cpu", "memory", "files", "room")


def judge(case: Case) -> tuple[CheckResult, ...]:
    """Return what every check found, in the order of RULES."""
    return tuple(result for rule in RULES.values() for result in rule(case))
