"""Reads what Debian's packages have put into the tree of an image."""

from __future__ import annotations

from pathlib import Path

from lab.errors import BuildError
from lab.hosts.guest.guest_type import GuestType, built_in, migratable


def only(folder: Path, pattern: str) -> Path:
    """Return the one file in `folder` that matches. Raises BuildError."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise BuildError(f"the image must have one {pattern}, but has {len(found)}")
    return found[0]


def versions(tree: Path) -> dict[str, str]:
    """Return package -> version from dpkg's status file."""
    found, name = {}, ""
    for line in (tree / "var/lib/dpkg/status").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(": ")
        if key == "Package":
            name = value
        elif key == "Version":
            found[name] = value
    return found


def guest_type(tree: Path) -> GuestType:
    """Return the type of guest that the hypervisor can migrate, by its build configuration. Raises BuildError."""
    config = only(tree / "boot", "xen-*-amd64.config")
    found = migratable(built_in(config.read_text(encoding="utf-8")))
    if found is None:
        raise BuildError(f"this Xen can migrate no guests: {config.name} has no SHADOW_PAGING with PV, and no HVM")
    return found
