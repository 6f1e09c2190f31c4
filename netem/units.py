"""Quantities as text with units, and back: `120ms`, `200mbit`, `64kib`, `1%`.

A number without a unit is refused (except 0), and so are units that tools read differently: tc takes `mbps` for
megabytes and `kb` for 1024 bytes, most people do not. Arithmetic is decimal, so that every value that is printed
reads back exactly: parse(format(x)) == x.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from math import isfinite

from netem.errors import UnitError

_TIME = {"s": Decimal(1), "ms": Decimal("1e-3"), "us": Decimal("1e-6"), "ns": Decimal("1e-9")}
_RATE = {"gbit": Decimal(10**9), "mbit": Decimal(10**6), "kbit": Decimal(1000), "bit": Decimal(1)}
_SIZE = {"gib": Decimal(1 << 30), "mib": Decimal(1 << 20), "kib": Decimal(1 << 10), "b": Decimal(1)}
_UNLIMITED = ("unlimited", "none", "max")
_QUANTITY = re.compile(r"([0-9]*\.?[0-9]+(?:e[+-]?[0-9]{1,3})?)\s*([a-zµμ%/]*)", re.IGNORECASE)


def parse_time(text: str) -> float:
    """Return seconds from `120ms`, `1.5s`, `30us`, `0`. Raises UnitError."""
    return float(_parse(text, _TIME, "time", "120ms"))


def parse_rate(text: str) -> int | None:
    """Return bits per second from `200mbit`, `1Gbit/s`; None for `unlimited`. Raises UnitError."""
    if text.strip().lower() in _UNLIMITED:
        return None
    value = _whole(_parse(text, _RATE, "rate", "200mbit"), text, "bits per second")
    if value == 0:
        raise UnitError(f"a link of rate {text!r} carries nothing", hint="write `unlimited` for no limit")
    return value


def parse_size(text: str) -> int | None:
    """Return bytes from `64kib`, `2mib`, `1500b`; None for `auto`. Raises UnitError."""
    if text.strip().lower() == "auto":
        return None
    return _whole(_parse(text, _SIZE, "size", "64kib"), text, "bytes")


def parse_share(text: str) -> float:
    """Return a probability 0..1 from `1%`, `0.1%`, `0`. Raises UnitError."""
    share = float(_parse(text, {"%": Decimal("0.01")}, "share", "1%"))
    if share > 1:
        raise UnitError(f"{text!r} is more than 100%")
    return share


def format_time(seconds: float) -> str:
    """Return the shortest exact text of a time: 0.12 -> `120ms`."""
    return _format(_decimal(seconds), _TIME)


def format_rate(rate_bits: int | None) -> str:
    """Return the shortest exact text of a rate in bit/s: 200000000 -> `200mbit`, None -> `unlimited`."""
    return "unlimited" if rate_bits is None else _format(Decimal(rate_bits), _RATE)


def format_size(size: int | None) -> str:
    """Return the shortest exact text of a size in bytes: 65536 -> `64kib`, None -> `auto`."""
    return "auto" if size is None else _format(Decimal(size), _SIZE)


def format_share(share: float) -> str:
    """Return the exact text of a probability: 0.01 -> `1%`."""
    return f"{_plain(_decimal(share) * 100)}%" if share else "0"


def _parse(text: str, units: Mapping[str, Decimal], what: str, example: str) -> Decimal:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise UnitError(f"{text!r} is not a {what}", hint=f"write it like {example}")
    number = Decimal(match[1])
    unit = match[2].lower().replace("µ", "u").replace("μ", "u").removesuffix("/s")
    if unit in units:
        return number * units[unit]
    if not unit and number == 0:
        return number
    known = ", ".join(units)
    if not unit:
        raise UnitError(f"{text!r} has no unit", hint=f"a {what} ends in one of: {known}")
    raise UnitError(f"{match[2]!r} in {text!r} is not a unit of a {what}", hint=f"use one of: {known}")


def _whole(value: Decimal, text: str, unit: str) -> int:
    if value != value.to_integral_value():
        raise UnitError(f"{text!r} is not a whole number of {unit}")
    return int(value)


def _decimal(value: float) -> Decimal:
    if not isfinite(value) or value < 0:
        raise UnitError(f"{value!r} is not a quantity: it must be a finite number, 0 or more")
    return Decimal(repr(value))


def _format(value: Decimal, units: Mapping[str, Decimal]) -> str:
    """Format in the largest unit of which `value` is a whole number, else in the one with the shortest text."""
    exact = [(value / scale, unit) for unit, scale in units.items() if value / scale * scale == value]
    for count, unit in exact:
        if count == count.to_integral_value():
            return _plain(count) + unit
    return min((_plain(count) + unit for count, unit in exact), key=len)


def _plain(value: Decimal) -> str:
    text = format(value.normalize(), "f")
    return text if len(text) < 20 else str(value.normalize()).lower()
