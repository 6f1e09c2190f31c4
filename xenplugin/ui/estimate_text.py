"""An estimate as text: one line for a move that begins, some more for a plan."""

from __future__ import annotations

from collections.abc import Callable

from xenplugin.results import Estimate, Expected
from xenplugin.ui import units


def line(estimate: Estimate) -> str:
    """Return what is expected, in one line."""
    parts = [f"about {_expected(estimate.seconds, units.seconds)}"]
    if estimate.downtime is not None:
        parts.append(f"suspended about {_expected(estimate.downtime, units.seconds)}")
    sent = f"about {units.size(estimate.bytes_wire.middle)} to send"
    return f"{', '.join(parts)}: {sent} at {units.rate(estimate.rate.middle)}, RTT {_rtt(estimate.rtt)}"


def details(estimate: Estimate) -> list[str]:
    """Return what moves, what the far host has of it already, how sure that is, and what was assumed."""
    found = []
    if estimate.bytes_memory:
        found.append(f"memory: {units.size(estimate.bytes_memory)}")
    for disk in estimate.disks:
        found.append(
            f"{disk.name} ({units.size(disk.bytes_image)}): {_expected(disk.bytes_to_send, units.size)} to send,"
            f" {_expected(disk.bytes_known, units.size)} are there already"
        )
    found.append(
        f"on the wire: {_expected(estimate.bytes_wire, units.size)}, at"
        f" {_expected(estimate.rate, units.rate)}, RTT {_rtt(estimate.rtt)}"
    )
    found += [f"not measured: {text}" for text in estimate.assumptions]
    return found


def _expected(value: Expected, unit: Callable[[float], str]) -> str:
    """Return the middle and, unless they look the same, the range."""
    low, middle, high = (unit(each) for each in (value.low, value.middle, value.high))
    if low == middle == high:
        return middle
    number, _, name = low.partition(" ")
    return f"{middle} ({number if high.endswith(' ' + name) and ' ' not in name else low} to {high})"


def _rtt(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"
