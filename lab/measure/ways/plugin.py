"""`xenplugin migrate` in each of its modes, to a host that does not have the disk."""

from __future__ import annotations

from lab.measure.way import Family, Sent, Style, Way

_STYLES = {
    "full": Style("#2a7fb0", "#6cbbea", (9, 3, 2, 3), "<"),
    "static": Style("#00795a", "#2fc79a", (), "o", 2.8),
    "live": Style("#0b4f9e", "#7aa9f0", (5, 2), "*", 2.4),
}

WAYS = tuple(
    Way(
        mode,
        f"xenplugin {mode}",
        Family.PLUGIN,
        90 + 10 * number,
        style,
        disk=True,
        memory=True,
        sent=Sent(0.4, 1.0 if mode == "full" else 0.4),
    )
    for number, (mode, style) in enumerate(_STYLES.items())
)
