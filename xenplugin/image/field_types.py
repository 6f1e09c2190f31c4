"""Checks the fields of a dataclass that was made from JSON."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

T = TypeVar("T")
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "bool": (bool,), "float": (int, float),
    "int | None": (int, type(None)), "str | None": (str, type(None)),
}  # fmt: skip


def typed(value: T) -> T:
    """Return the dataclass `value`. Raises TypeError unless its plain fields have the types that they are declared
    with."""
    checked: Any = value
    for field in fields(checked):
        wanted = _TYPES.get(str(field.type))
        if wanted and type(getattr(value, field.name)) not in wanted:
            raise TypeError(f"{field.name} is {getattr(value, field.name)!r}")
    return value
