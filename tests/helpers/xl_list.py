"""Reads `xl list -v` of hosts whose guests have ordinary names."""

from __future__ import annotations

import re

from xenplugin.xen.xl import Domain, parse_one


def parse_list(text: str) -> list[Domain]:
    """Return the domains of a whole list, each parsed as if xl had been asked for it alone."""
    head, *rows = text.splitlines(keepends=True)
    return [parse_one(head + row, int(re.split(" +", row)[1])) for row in rows]
