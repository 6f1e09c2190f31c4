"""Sizes, rates and durations as text for people."""

from __future__ import annotations


def size(count: float) -> str:
    """Return a number of bytes with a binary unit: 4.0 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} TiB"


def rate(bytes_per_second: float) -> str:
    """Return bytes/s as a link rate in bits/s with a decimal unit: 198 Mbit/s."""
    bits = bytes_per_second * 8
    for unit in ("bit/s", "kbit/s", "Mbit/s"):
        if bits < 1000:
            return f"{bits:.0f} {unit}"
        bits /= 1000
    return f"{bits:.2f} Gbit/s"


def seconds(value: float) -> str:
    """Return seconds as a duration: 0.4 s, 12.3 s, 2 min 05 s, 1 h 02 min."""
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def printable(text: str) -> str:
    """Return `text` with everything that could control a terminal made visible."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
