"""zstd piped through ssh for the disk of a stopped guest, then `xl migrate` over ssh."""

from __future__ import annotations

import shlex

from lab.measure.hosts import Hosts
from lab.measure.way import Style, stopped


def copy(hosts: Hosts, threads: int = 0) -> None:
    """Copy the disk; `threads` of the compressor, 0: one for each core. Raises CommandError."""
    far = f"zstd -q -d --sparse -f -o {shlex.quote(hosts.arrived)}"
    pipe = f"zstd -q -1 -T{threads} -c {shlex.quote(hosts.disk)} | {shlex.join([*hosts.ssh, hosts.far, far])}"
    hosts.run(["bash", "-o", "pipefail", "-c", pipe])


WAYS = (stopped("zstd", "zstd | ssh, xl over ssh", 80, Style("#6b6b00", "#c8c83c", (10, 4), "X"), copy, data=0.4),)
