"""zstd piped through ssh for the disk of a stopped guest, then `xl migrate` over ssh."""

from __future__ import annotations

from lab.measure.way import Family, Sent, Style, Way

WAYS = (
    Way(
        "zstd",
        "zstd | ssh, xl over ssh",
        Family.TOOL,
        80,
        Style("#6b6b00", "#c8c83c", (10, 4), "X"),
        disk=True,
        memory=True,
        xen=False,
        sent=Sent(1, 0.4),
    ),
)
