"""What the other side says about a format becomes part of a command line: only known words pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.errors import PeerError
from xenplugin.image.formats.kinds import KEPT, Format

known = st.sampled_from(sorted(KEPT)).flatmap(
    lambda name: st.fixed_dictionaries(
        {}, optional={key: st.sampled_from(sorted(values)) for key, values in KEPT[name].items()}
    ).map(lambda options: Format(name, tuple(sorted(options.items()))))
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(known | st.just(Format()))
def test_a_format_is_understood_by_the_other_side(format: Format) -> None:
    assert Format.of_json(format.as_json()) == format


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"name": "raw"},
        {"name": "raw", "options": {"size": "1"}},
        {"name": "luks", "options": {}},
        {"name": "qcow2", "options": {"backing_file": "/etc/shadow"}},
        {"name": "qcow2", "options": {"data_file": "/etc/shadow"}},
        {"name": "qcow2", "options": {"cluster_size": "65536,backing_file=/etc/shadow"}},
        {"name": "qcow2", "options": {"cluster_size": 65536.5}},
        {"name": "qcow2", "options": {"compat": "1.2"}},
        {"name": "qcow2", "options": []},
    ],
)
def test_other_words_are_refused(value: object) -> None:
    with pytest.raises(PeerError, match="image format"):
        Format.of_json(value)


@given(st.fixed_dictionaries({"name": st.sampled_from([*KEPT, "raw"]) | anything, "options": anything}))
def test_whatever_comes_is_refused_or_known(value: dict[str, object]) -> None:
    try:
        format = Format.of_json(value)
    except PeerError:
        return
    assert all(option in KEPT[format.name][key] for key, option in format.options)
