"""Sizes and rates as the report writes them."""

from __future__ import annotations

from netem.units import format_rate


def amount(data: int) -> str:
    """Return `300 MB`, `1.14 GB`."""
    return f"{round(data / 1e9, 2):g} GB" if data >= 10**9 else f"{data / 1e6:.0f} MB"


def speed(rate: int | None) -> str:
    """Return `100 Mbit/s` for a rate in bit/s."""
    if rate is None:
        return "no limit of the rate"
    text = format_rate(rate)
    for unit, name in (("gbit", "Gbit/s"), ("mbit", "Mbit/s"), ("kbit", "kbit/s")):
        if text.endswith(unit):
            return f"{text.removesuffix(unit)} {name}"
    return text
