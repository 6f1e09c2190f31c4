"""A demo for newcomers: one disk image, one long link, four ways to move it, and the results.

    python -m demo

`image` makes the disk, `world` the hosts and the link; `ways` are compared by `bench` on `hosts`; `wire` searches
what could be read on the link; `screen`, `chart` and `page` show the results.
"""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot continue; the message is one sentence for its user."""


def size(count: float) -> str:
    """Return a number of bytes for people: `545 MB` (powers of ten, as for links)."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def seconds(value: float) -> str:
    """Return a time for people: `8.4 s`, `2 min 05 s`."""
    if value < 99.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"
