"""What worlds whose process was killed left behind: found by the pid in the name, and removed.

A name like `xp-a-1234` belongs to process 1234. While any process of that number lives nothing is touched: a
number that was used again only means that the namespace stays until that process is gone too.
"""

from __future__ import annotations

import os
import re

from netem import netns
from netem.two_hosts import Host


def find(name_prefix: str = "xp") -> list[str]:
    """Namespaces of worlds whose process is dead."""
    pattern = re.compile(rf"{re.escape(name_prefix)}-[ab]-([0-9]+)(-[0-9]+)?")
    return [
        name
        for name in netns.names()
        if (match := pattern.fullmatch(name)) and not os.path.exists(f"/proc/{match[1]}")
    ]


def clean(name_prefix: str = "xp") -> list[str]:
    """Removes them and the processes inside; returns what was removed. Raises WorldError."""
    names = find(name_prefix)
    for name in names:
        Host(name, "", "").end_all()
        netns.delete(name)
    return names
