"""The newcomer's demo: one disk image, one long link, four ways to move it, and what came of it.

    python -m demo

`image` makes the disk, `world` the two hosts and the link, `ways` what is compared, `wire` the look at what
could be read on the way, `screen` and `page` what is shown.
"""

from __future__ import annotations


class DemoError(Exception):
    """The demo cannot go on; the text is one sentence for the person who started it."""


def size(count: float) -> str:
    """Bytes for people: `545 MB` (powers of ten, as the link counts)."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def seconds(value: float) -> str:
    """A time for people: `8.4 s`, `2 min 05 s`."""
    if value < 99.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"
