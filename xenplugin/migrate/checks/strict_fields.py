"""Dataclasses as JSON that the other host reads and does not trust: every field has its type, and a limit.

Pure. A key that is missing or that nobody knows, another type, longer text or more items than are allowed: each is
a ValueError. So is what a dataclass itself refuses (__post_init__).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from functools import cache
from math import isfinite
from typing import Any, TypeVar

from xenplugin.migrate import strict_json

T = TypeVar("T")
#: Most characters of a text, and most items of a list.
TEXT, ITEMS = 4096, 1024
_INT = 1 << 63
#: Fields of text for the eye.
_SHOWN = {"text", "hint", "xen_why", "policy_why"}


def write(value: Any) -> bytes:
    """Return the dataclass `value` as one line of JSON, without a line feed. Text for the eye is cut if it is too
    long. Raises ValueError if its text cannot be written."""
    return strict_json.serialise(dataclasses.asdict(value, dict_factory=_cut))


def _cut(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        name: f"{value[: TEXT - 3]}..."
        if name in _SHOWN and isinstance(value, str) and len(value) > TEXT
        else value
        for name, value in fields
    }


def excess(value: Any, name: str = "") -> str | None:
    """Return what in the dataclass `value` is more than `read` accepts, as text; None if nothing is. `name`: what
    the value is called."""
    if isinstance(value, str) and len(value) > TEXT:
        return f"a {name} of {len(value)} characters, more than the {TEXT} allowed ({value[:40]}...)"
    if isinstance(value, tuple) and len(value) > ITEMS:
        return f"{len(value)} {name}, more than the {ITEMS} allowed"
    parts: list[tuple[str, Any]] = []
    if dataclasses.is_dataclass(value):
        parts = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    elif isinstance(value, tuple):
        parts = [(name, one) for one in value]
    return next(filter(None, (excess(one, called) for called, one in parts)), None)


def read(kind: type[T], line: bytes) -> T:
    """Return the `kind` that `write` made `line` of. Raises ValueError, with the reason."""
    return typing.cast(T, _read(kind, strict_json.parse(line), kind.__name__))


def _read(kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, name)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):  # X | None
        return None if value is None else _read(arguments[0], value, name)
    if origin is tuple:
        if not isinstance(value, list) or len(value) > ITEMS:
            raise ValueError(f"{name} is not a list of at most {ITEMS} items")
        return tuple(_read(arguments[0], item, name) for item in value)
    if origin is dict:  # read by somebody else
        if not isinstance(value, dict):
            raise ValueError(f"{name} is not an object")
        return value
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < _INT else value
    if type(value) is not kind:
        raise ValueError(f"{name} is not of the type {kind.__name__}")
    if (
        (kind is str and len(value) > TEXT)
        or (kind is int and not -_INT <= value < _INT)
        or (kind is float and not isfinite(value))
    ):
        raise ValueError(f"{name} is too large")
    return value


def _dataclass(kind: Any, value: Any, name: str) -> Any:
    hints = _hints(kind)
    if not isinstance(value, dict) or value.keys() != hints.keys():
        raise ValueError(f"{name} has not the fields that it must have")
    return kind(**{key: _read(hint, value[key], f"{name}.{key}") for key, hint in hints.items()})


@cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)
