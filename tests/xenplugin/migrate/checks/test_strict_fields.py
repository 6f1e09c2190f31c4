"""Facts as JSON from the other host: read whole and typed, or refused by one error."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.xenplugin.migrate.checks.cases import FACTS, REQUEST
from xenplugin.migrate.checks import strict_fields
from xenplugin.migrate.checks.facts import HostFacts, Listening, SurveyRequest


@pytest.mark.parametrize(
    "value", [REQUEST, FACTS, replace(FACTS, xen=None), Listening(49300, ("192.0.2.7",), True)]
)
def test_what_is_written_is_read(value: Any) -> None:
    line = strict_fields.write(value)
    assert b"\n" not in line and strict_fields.read(type(value), line) == value


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values within `value`, but in what somebody else reads."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, item in items:
        found += [] if key in ("shared", "format") else paths(item, (*path, key))
    return found


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    copy = json.loads(json.dumps(value))
    place = copy
    for key in path[:-1]:
        place = place[key]
    if new is DELETED:
        del place[path[-1]]
    else:
        place[path[-1]] = new
    return copy


DELETED = object()
PLAIN = [json.loads(json.dumps(asdict(value))) for value in (REQUEST, FACTS)]


@pytest.mark.parametrize(("kind", "plain"), [(SurveyRequest, PLAIN[0]), (HostFacts, PLAIN[1])])
def test_every_field_has_its_type(kind: type[Any], plain: Any) -> None:
    for path in paths(plain):
        if isinstance(path[-1], str):
            with pytest.raises(ValueError):
                strict_fields.read(kind, json.dumps(changed(plain, path, DELETED)).encode())
        with pytest.raises(ValueError):
            strict_fields.read(kind, json.dumps(changed(plain, path, object.__name__ * 2000)).encode())
        with pytest.raises(ValueError):
            strict_fields.read(kind, json.dumps(changed(plain, path, {"other": 1})).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"domid": True},
        {"domid": 1 << 64},
        {"domid": 1.0},
        {"name": "x" * 5000},
        {"name": "a\0b"},
        {"files": [{}] * 2000},
        {"kind": "vm"},
        {"disks": [{**PLAIN[0]["disks"][0], "size": -1}]},
    ],
)
def test_limits(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        strict_fields.read(SurveyRequest, json.dumps({**PLAIN[0], **change}).encode())


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (HostFacts, json.dumps(PLAIN[1]).replace('"clock": 1000000000.0', '"clock": 1e999')),
        (HostFacts, json.dumps(PLAIN[1]).replace("1970169159", "4294967296")),
        (HostFacts, json.dumps(PLAIN[1]).replace("1970169159, ", "")),
        (Listening, '{"port": 65536, "addresses": [], "wanted": true}'),
        (Listening, '{"port": 7, "addresses": ["a.name"], "wanted": true}'),
    ],
)
def test_values_that_are_none(kind: type[Any], text: str) -> None:
    assert text not in (json.dumps(plain) for plain in PLAIN)
    with pytest.raises(ValueError):
        strict_fields.read(kind, text.encode())


@given(st.binary(max_size=200))
def test_anything_else_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError):
        strict_fields.read(HostFacts, line)


def test_deep_nesting_is_a_value_error() -> None:
    with pytest.raises(ValueError):
        strict_fields.read(SurveyRequest, b"[" * 100_000)
    with pytest.raises(ValueError):
        strict_fields.read(SurveyRequest, b'{"name":"a","name":"b"}')
