"""rsync with zstd for the disk of a stopped guest, then `xl migrate` over ssh."""

from __future__ import annotations

from lab.measure.way import Family, Sent, Style, Way

WAYS = (
    Way(
        "rsync",
        "rsync -S -z, xl over ssh",
        Family.TOOL,
        70,
        Style("#8a6d00", "#d9c34a", (3, 3), "P"),
        disk=True,
        memory=True,
        xen=False,
        sent=Sent(1, 0.5),
    ),
)
