"""Show a calibration as a table: one line for each quantity that was asked for and measured."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from netem import units
from netem.profile import Profile

Row = tuple[str, str, str]


def rows(result: dict[str, Any]) -> list[Row]:
    """Return (quantity, asked, measured) of a result of calibrate()."""
    profile = Profile.from_dict(result["profile"])
    asked = profile.texts()
    rtt, late = result["rtt"], result["lateness"]
    table = [
        ("round trip, median", _ms(profile.rtt), _ms(rtt["median"])),
        (f"round trip, p99 of {rtt['rounds']}", "", _ms(rtt["p99"])),
        (f"rate, {result['connections']} connections", _rate(profile.rate_bits), _rate(result["rate"])),
    ]
    for direction, counts in result["loss"].items():
        if profile.loss:
            expected = f"{asked['loss']}: {counts['predicted']} of {counts['packets']}"
            table.append((f"lost {_name(direction)}", expected, f"{counts['lost']} packets"))
    if profile.rate_bits is not None:
        table.append(("dropped by the queue", "", f"{result['dropped']} packets"))
    if result["overrun"]:
        table.append(("dropped before the emulator", "0", f"{result['overrun']} frames"))
    for direction, values in late.items():
        text = f"p50 {_ms(values['p50'])}, p99 {_ms(values['p99'])}"
        table.append((f"late {_name(direction)}", "", text))
    per_gb = result["cpu"]["seconds_per_gb"]
    cost = f"{result['cpu']['share']:.2f} CPU" + ("" if per_gb is None else f", {per_gb:.2f} s per GB")
    table.append(("emulator's own cost", "", cost))
    table.append(("stolen by the hypervisor", "", f"{result['steal']['share'] * 100:.1f} %"))
    return table


def render(result: dict[str, Any]) -> Table:
    """Return the rows as a rich table; a caption says if the run should be repeated."""
    profile = Profile.from_dict(result["profile"])
    verdict = "" if result["believable"] else "packets were late or CPU time was stolen: repeat this run"
    table = Table(box=SIMPLE_HEAD, title=str(profile), caption=verdict or None, title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("asked", justify="right", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    for row in rows(result):
        table.add_row(*row)
    return table


def _name(direction: str) -> str:
    return direction.replace("_", " ")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def _rate(rate_bits: float | None) -> str:
    if rate_bits is None:
        return units.format_rate(None)
    return f"{rate_bits / 1e9:.2f} Gbit/s" if rate_bits >= 1e9 else f"{rate_bits / 1e6:.2f} Mbit/s"
