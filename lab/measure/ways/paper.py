"""The paper's ways for the disk of a stopped guest: compress, encrypt, copy and back, one tool after the other.

`paper-full` sends the whole disk uncompressed; `paper-partial`, on real Xen `paper`, compresses it first.
"""

from __future__ import annotations

from lab.measure.way import Family, Sent, Style, Way

_PARTIAL = Style("#b34d8f", "#d995bd", (6, 3), "v")

WAYS = (
    Way(
        "paper-full",
        "paper's full",
        Family.PAPER,
        40,
        Style("#b5560b", "#e9925a", (9, 3, 2, 3), "^"),
        disk=True,
        memory=False,
        xen=False,
        holes=True,
    ),
    Way(
        "paper-partial",
        "paper's partial",
        Family.PAPER,
        50,
        _PARTIAL,
        disk=True,
        memory=False,
        xen=False,
        sent=Sent(0, 0.5),
    ),
    Way("paper", "paper's way for the disk", Family.PAPER, 60, _PARTIAL, disk=True, memory=False, native=False),
)
