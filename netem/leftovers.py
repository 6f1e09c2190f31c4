"""Find and remove the namespaces that killed processes left behind, by the process ID in their names.

A name like `xp-a-1234` belongs to process 1234. While any process has that number nothing is removed: if the number
is in use again, the namespace only stays until that process has ended too.
"""

from __future__ import annotations

import os
import re

from netem import netns
from netem.two_hosts import Host


def find(name_prefix: str = "xp") -> list[str]:
    """Return the namespaces of TwoHosts whose process is dead."""
    pattern = re.compile(rf"{re.escape(name_prefix)}-[ab]-([0-9]+)(-[0-9]+)?")
    return [
        name
        for name in netns.names()
        if (match := pattern.fullmatch(name)) and not os.path.exists(f"/proc/{match[1]}")
    ]


def clean(name_prefix: str = "xp") -> list[str]:
    """Remove them and the processes inside; return what was removed. Raises HostsError."""
    names = find(name_prefix)
    for name in names:
        Host(name, "", "").end_all()
        netns.delete(name)
    return names
