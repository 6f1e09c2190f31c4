"""Names of old disks: always legal, always told apart from the disk's own, and they say where the guest went."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.image.beside import LONGEST
from xenplugin.image.old.aside_name import (
    LONGEST_VOLUME,
    arrived_file,
    aside_file,
    aside_volume,
    is_aside,
    mapped,
    replaced_file,
)

LEFT = 1795979171.0
#: Names as the kernel has them: any bytes but "/" and NUL.
NAMES = st.binary(min_size=1, max_size=255).map(
    lambda raw: os.fsdecode(raw.replace(b"/", b"_").replace(b"\0", b"_"))
)
HOSTS = st.text(max_size=300)


def test_the_documented_name() -> None:
    assert aside_file("g1.img", "root@hostb", LEFT) == "g1.img.left-for-hostb-20261129T190611Z"
    assert aside_file("g1.img", "hostb", LEFT, 2) == "g1.img.left-for-hostb-20261129T190611Z.2"
    assert aside_volume("vg0", "g1", "hostb", LEFT) == "g1.left-for-hostb-20261129T190611Z"


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("fe80::1%eth0", "fe80-1-eth0"), ("ssh -p 22 root@b xenplugin receive", "b-xenplugin-receive"),
        ("", "unknown"),
        ("é/../x\n", "..-x"), ("-oProxyCommand=x", "oProxyCommand-x"), ("b.example.org", "b.example.org"),
    ],
)  # fmt: skip
def test_odd_hosts(host: str, plain: str) -> None:
    assert aside_file("g1", host, LEFT) == f"g1.left-for-{plain}-20261129T190611Z"


@given(NAMES, HOSTS, st.floats(0, 4e9), st.integers(0, 10**6))
def test_a_file_gets_a_legal_name(name: str, host: str, left: float, number: int) -> None:
    made = os.fsencode(aside_file(name, host, left, number))
    assert len(made) <= LONGEST and b"/" not in made and b"\0" not in made and made != os.fsencode(name)
    stem, _, rest = made.rpartition(b".left-for-")
    assert stem and os.fsencode(name).startswith(stem)
    assert re.fullmatch(rb"[A-Za-z0-9.-]+-[0-9]{8}T[0-9]{6}Z(\.[0-9]+)?", rest)
    if len(made) < LONGEST - 3:
        assert stem == os.fsencode(name)


@given(NAMES, HOSTS, st.integers(0, 50), st.sampled_from([aside_file, replaced_file, arrived_file]))
def test_names_that_were_made_are_known(
    name: str, host: str, number: int, make: Callable[[str, str, float, int], str]
) -> None:
    assert is_aside(make(name, host, LEFT, number)) and not is_aside("g1.cfg.from-hostb") and not is_aside("g1.cfg")


@given(st.text(min_size=1, max_size=255), HOSTS)
def test_a_name_that_is_cut_stays_valid_text(name: str, host: str) -> None:
    if name.isprintable():
        os.fsencode(aside_file(name, host, LEFT)).decode()


@given(NAMES, HOSTS, st.integers(0, 50))
def test_names_with_different_numbers_differ(name: str, host: str, number: int) -> None:
    assert aside_file(name, host, LEFT, number) != aside_file(name, host, LEFT, number + 1)


_LVM = st.text("abcXYZ019+_.-", min_size=1, max_size=100)


@given(_LVM, _LVM, HOSTS)
def test_a_volume_gets_a_legal_name(group: str, name: str, host: str) -> None:
    try:
        made = aside_volume(group, name, host, LEFT)
    except ValueError:
        assert len(mapped(group, "x")) + len(host) > 50
        return
    assert len(mapped(group, made)) <= LONGEST_VOLUME and made != name
    assert re.fullmatch("[a-zA-Z0-9+_.-]+", made) and name.startswith(made.rpartition(".left-for-")[0])
