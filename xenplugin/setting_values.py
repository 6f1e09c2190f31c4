"""Parsers of settings that need nothing of the program. Pure; each raises ValueError for what it cannot parse. Bad
values as text for messages."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from typing import Any

from xenplugin.image.formats.kinds import KEPT, RAW

Table = tuple[tuple[str, str], ...]
_TIME_UNITS = {"ms": 0.001, "s": 1, "min": 60, "h": 3600}


def parse_time(text: str | float) -> float:
    """Return seconds from a time: 120.0 from '2min'. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([a-z]*)", str(text).strip().lower())
    if match is None or isinstance(text, bool) or match[2] not in ("", *_TIME_UNITS):
        raise ValueError('a time is a number with a unit: ms, s, min or h, like "30s"')
    if not match[2]:
        raise ValueError(f'a time needs a unit: "{match[1]}s" for seconds, or ms, min, h')
    seconds = float(match[1]) * _TIME_UNITS[match[2]]
    if not 1 <= seconds <= 86400:
        raise ValueError('a time is at least "1s" and at most "24h"')
    return seconds


def parse_silence(text: str | float) -> float:
    """Return seconds from the time after which a quiet connection is lost. Raises ValueError."""
    seconds = parse_time(text)
    if seconds <= 5:  # a quiet connection sends a PING every 5 s (docs/wire-format.md)
        raise ValueError('it must be more than "5s": a quiet connection sends something every 5 seconds')
    return seconds


def parse_text(text: str) -> str:
    """Return printable text. Raises ValueError."""
    if not isinstance(text, str) or not text.isprintable():
        raise ValueError("it must be printable text")
    return text


def parse_congestion(text: str) -> str:
    """Return the name of a congestion control. Raises ValueError."""
    if not isinstance(text, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,15}", text):
        raise ValueError("a congestion control is a name like cubic or bbr")
    return text


def parse_flag(value: bool) -> bool:
    """Return a boolean. Raises ValueError."""
    if type(value) is not bool:
        raise ValueError("it must be true or false")
    return value


def parse_address(text: str) -> str:
    """Return an IP address in its usual form. Raises ValueError."""
    return str(ipaddress.ip_address(parse_text(text)))


def one_of(values: tuple[str, ...]) -> Callable[[str], str]:
    """Return a parser that takes one of `values`."""

    def parse(text: str) -> str:
        if text not in values:
            raise ValueError(f"it is {' or '.join(values)}")
        return text

    return parse


def parse_bridges(value: Any) -> Table:
    """Return pairs of a bridge of the source and one of this host, from a table. Raises ValueError."""
    pairs = _pairs(value, '{"xenbr0" = "br0"}')
    for name in (name for pair in pairs for name in pair):
        # Open vSwitch: a VLAN and trunks may follow the name (vif-openvswitch of Xen's hotplug scripts).
        if not isinstance(name, str) or not re.fullmatch("[A-Za-z0-9_.:-]{1,64}", name):
            raise ValueError(f"{name!r} is not the name of a bridge")
    return tuple(sorted(pairs))


def parse_formats(value: Any) -> Table:
    """Return pairs of a format of the source and the one here from a table. Raises ValueError."""
    pairs = _pairs(value, '{"qcow2" = "raw"}')
    for name in (name for pair in pairs for name in pair):
        if name != RAW and name not in KEPT:
            raise ValueError(f"{name!r} is none of {RAW}, {', '.join(KEPT)}")
    return tuple(sorted(pairs))


def parse_folders(value: Any) -> tuple[str, ...]:
    """Return absolute paths of folders from a list. Raises ValueError."""
    if not isinstance(value, list | tuple):
        raise ValueError('it must be a list like ["/srv/base"]')
    for path in value:
        if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise ValueError(f"{path!r} must be an absolute path without '..'")
    return tuple(value)


def parse_shared(value: Any) -> tuple[str, ...]:
    """Return the paths of shared disks, or of folders of such, from a list. Raises ValueError."""
    paths = parse_folders(value)
    if any(not path.strip("/") for path in paths):
        raise ValueError("'/' would name each disk of this host")
    return paths


def _pairs(value: Any, example: str) -> list[tuple[Any, Any]]:
    if not isinstance(value, dict | tuple):
        raise ValueError(f"it must be a table like {example}")
    return list(dict(value).items())


def shown(value: Any) -> str:
    """Return a bad value for a message, its first 100 characters."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):  # a number of thousands of digits; thousands of brackets
        return "a value"
    return text[:100] + "..." * (len(text) > 100)
