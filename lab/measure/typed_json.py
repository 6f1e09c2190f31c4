"""Read JSON objects into frozen dataclasses and write them back, with each value's type checked.

The field names of a dataclass are the keys. Unknown keys are ignored; a field with a default may be missing.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def read(kind: type[T], values: object, where: str = "") -> T:
    """Return an instance of the dataclass `kind` made from the JSON object `values`. `where`: its key, for errors.

    Raises ValueError that names the key which is missing or of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where or 'the file'} is not an object")
    hints, known = _hints(typing.cast(Any, kind)), fields(typing.cast(Any, kind))
    inside = f"{where}." if where else ""
    found = {}
    for each in known:
        if each.name in values:
            found[each.name] = _value(hints[each.name], values[each.name], inside + each.name)
        elif not _optional(each):
            raise ValueError(f"{inside}{each.name} is missing")
    return kind(**found)


def write(value: Any) -> Any:
    """Return `value` as JSON has it: dataclasses as objects, tuples as lists.

    Optional fields that are None or empty are left out.
    """
    if is_dataclass(value):
        found = {each.name: getattr(value, each.name) for each in fields(value)}
        optional = {each.name for each in fields(value) if _optional(each)}
        return {
            name: write(each) for name, each in found.items() if name not in optional or each not in (None, (), {})
        }
    if isinstance(value, Mapping):
        return {key: write(each) for key, each in value.items()}
    return [write(each) for each in value] if isinstance(value, tuple | list) else value


def _optional(each: Field[Any]) -> bool:
    return each.default is not MISSING or each.default_factory is not MISSING


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _value(kind: Any, value: object, where: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        return value if isinstance(value, kind) else read(kind, value, where)
    if origin is types.UnionType:  # an optional value
        return None if value is None else _value(inner[0], value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} is not a list")
        several = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        if len(several) != len(value):
            raise ValueError(f"{where} has {len(value)} values instead of {len(several)}")
        return tuple(_value(each, one, f"{where}[]") for each, one in zip(several, value, strict=True))
    if origin is not None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} is not an object")
        return {str(key): _value(inner[1], one, f"{where}.{key}") for key, one in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ValueError(f"{where} is {value!r}, not {_NAMES.get(kind, kind.__name__)}")
    return value


_NAMES = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}
