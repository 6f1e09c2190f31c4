"""rsync with zstd for the disk of a stopped guest, then `xl migrate` over ssh."""

from __future__ import annotations

import shlex

from lab.measure.hosts import Hosts
from lab.measure.way import Style, stopped


def copy(hosts: Hosts) -> None:
    """Copy the disk. Raises CommandError."""
    words = ["rsync", "-S", "-z", "--zc=zstd", "-e", shlex.join(hosts.ssh)]
    hosts.run([*words, hosts.disk, f"{hosts.far}:{hosts.arrived}"])


WAYS = (stopped("rsync", "rsync -S -z, xl over ssh", 70, Style("#8a6d00", "#d9c34a", (3, 3), "P"), copy, data=0.5),)
