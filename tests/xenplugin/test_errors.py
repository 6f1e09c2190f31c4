"""One tree of errors, one exit code each, the same that the texts promise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xenplugin import errors
from xenplugin.errors import PeerError, XenpluginError, from_code

#: The table of the design; 130 is the shell's for SIGINT.
TABLE = {
    "UsageError": 2,
    "ConfigError": 10,
    "PeerError": 11,
    "TamperError": 12,
    "ImageError": 13,
    "LinkError": 14,
    "RefusedError": 15,
    "OwnershipError": 20,
    "Interrupted": 130,
}
CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, XenpluginError)]


def test_every_class_has_the_code_of_the_table() -> None:
    assert {kind.__name__: kind.code for kind in CLASSES if kind is not XenpluginError} == TABLE


def test_codes_are_unique_and_found_again() -> None:
    assert sorted(errors.BY_CODE) == sorted(TABLE.values()) and len(set(TABLE.values())) == len(TABLE)
    for name, code in TABLE.items():
        assert errors.BY_CODE[code].__name__ == name and errors.BY_CODE[code].code == code


def test_every_class_says_what_it_means() -> None:
    for kind in CLASSES:
        assert (kind.__doc__ and kind.__doc__ != XenpluginError.__doc__) or kind is XenpluginError
        assert 1 <= kind.code <= 255


@pytest.mark.parametrize("code", [*TABLE.values(), 0, 1, 99, 65535])
def test_a_remote_error_is_marked_as_remote(code: int) -> None:
    error = from_code(code, XenpluginError("it broke", hint="mend it").report_text())
    assert error.remote and error.hint == "mend it" and error.message == "it broke"
    assert str(error) == "far side: it broke"
    assert type(error) is errors.BY_CODE.get(code, PeerError)
    assert str(type(error)("it broke")) == "it broke"


def test_the_format_names_the_same_codes() -> None:
    text = (Path(__file__).parents[2] / "docs" / "wire-format.md").read_text()
    passage = re.search(r"The code is the exit code of the sender's failure: ([^.]*)\.", text)
    assert passage
    named = re.findall(r"(\d+) (\w+)", passage[1])
    assert named
    for code, word in named:
        name = errors.BY_CODE[int(code)].__name__.lower()
        assert name.startswith(word[:6]), (code, word)
