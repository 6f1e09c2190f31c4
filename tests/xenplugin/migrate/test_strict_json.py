"""JSON in which no two parsers read two things: what is refused, and that all else comes back as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.migrate import strict_json

_TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=6)
_PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT
_VALUES = st.recursive(
    _PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4), max_leaves=20
)


@given(_VALUES, st.booleans(), st.sampled_from([None, 3]))
def test_what_is_read_is_written(value: Any, ascii: bool, indent: int | None) -> None:
    data = json.dumps(value, ensure_ascii=ascii, indent=indent).encode()
    assert strict_json.parse(data) == value
    assert strict_json.parse(strict_json.serialise(strict_json.parse(data))) == value


def _objects(value: Any) -> list[dict[str, Any]]:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value] * isinstance(value, dict) + [found for each in inner for found in _objects(each)]


def _written(value: Any, doubled: dict[str, Any], key: str, spelled: str) -> str:
    """`value` as JSON; the object `doubled` has `key` once more, spelled as `spelled`."""
    if isinstance(value, dict):
        rows = [f"{json.dumps(name)}: {_written(each, doubled, key, spelled)}" for name, each in value.items()]
        return "{" + ", ".join(rows + [f"{spelled}: 1"] * (value is doubled)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_written(each, doubled, key, spelled) for each in value) + "]"
    return json.dumps(value)


@given(st.dictionaries(_TEXT, _VALUES, min_size=1, max_size=4), st.data())
def test_a_key_that_any_object_has_twice_is_refused(value: dict[str, Any], data: st.DataObject) -> None:
    """Wherever it is, and however its second spelling differs."""
    doubled = data.draw(st.sampled_from([each for each in _objects(value) if each]))
    key = data.draw(st.sampled_from(sorted(doubled)))
    units = key.encode("utf-16-be")
    escaped = "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
    spelled = data.draw(st.sampled_from([json.dumps(key), json.dumps(key, ensure_ascii=False), f'"{escaped}"']))
    text = _written(value, doubled, key, spelled)
    json.loads(text)  # other parsers take it
    with pytest.raises(ValueError, match="twice"):
        strict_json.parse(text.encode())


@given(st.text(max_size=4), st.integers(0, 4))
def test_text_with_a_nul_is_refused_wherever_it_is(text: str, backslashes: int) -> None:
    text = text.replace("\0", "")
    escape = "\\" * backslashes + "\\u0000"
    body = json.dumps(text)[1:-1] + escape
    for data in (f'["{body}"]', f'{{"{body}": 1}}'):
        if backslashes % 2:  # a backslash, and then the letters u0000
            assert strict_json.parse(data.encode())
        else:
            with pytest.raises(ValueError, match="NUL"):
                strict_json.parse(data.encode())


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_one_known_error(data: bytes) -> None:
    try:
        strict_json.serialise(strict_json.parse(data))
    except ValueError:
        return


@pytest.mark.parametrize("depth", [10_000, 400_000])
@pytest.mark.parametrize("form", ["[", '{"a":'])
def test_what_is_nested_too_deeply(form: str, depth: int) -> None:
    close = "]" if form == "[" else "}"
    with pytest.raises(ValueError, match="nested too deeply"):
        strict_json.parse((form * depth + "1" + close * depth).encode())


def test_bytes_that_are_not_utf_8_stay() -> None:
    assert strict_json.serialise(strict_json.parse(b'{"a\xff":"\xfe"}')) == b'{"a\xff": "\xfe"}'
