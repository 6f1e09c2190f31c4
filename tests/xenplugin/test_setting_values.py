"""How the values of settings are read: ports, rates, levels, paths."""

from __future__ import annotations

import pytest

from xenplugin.codec.compress import STORE
from xenplugin.config import Config, parse_level, parse_ports, parse_rate
from xenplugin.errors import RefusedError


@pytest.mark.parametrize(("text", "ports"), [("0", []), ("5", [5]), ("7-9", [7, 8, 9]), ("65535", [65535])])
def test_port_ranges(text: str, ports: list[int]) -> None:
    assert list(Config(ports=parse_ports(text)).port_range) == ports


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("8kbit", 1000),
        ("0.5gbit", 62_500_000),
        (" 10 MBIT ", 1_250_000),
        ("10mbitps", 1_250_000),
        ("8000bit", 1000),
        (0, 0),
    ],
)
def test_rates(text: str | int, rate: int) -> None:
    assert parse_rate(text) == rate


def test_levels() -> None:
    assert [parse_level(text) for text in ("auto", "store", "-7", " 3 ", "+3", 19)] == [None, STORE, -7, 3, 3, 19]


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/dev/vg0/g1", "/dev/other/g1"),
        ("/dev/vg0/fast/g1", "/srv/g1"),
        ("/dev/vg0/fast", "/srv"),
        ("/dev/vg01/g1", "/dev/vg01/g1"),
        ("/dev/vg0", "/dev/other"),
        ("/dev//vg0//g1", "/dev/other/g1"),
        ("/home/disk", "/home/disk"),
        ("/up/disk", "/disk"),
    ],
)
def test_a_disk_goes_where_its_path_is_mapped(path: str, there: str) -> None:
    table = {"/dev/vg0": "/dev/other", "/dev/vg0/fast": "/srv", "/up": "/"}
    assert Config().with_values({"paths": table}).mapped(path) == there
    assert Config().with_values({"paths": {"/": "/all"}}).mapped("/a/b") == "/all/a/b"


@pytest.mark.parametrize("path", ["", "disk", "../disk", "/a/../b", "/a/..", "/a\nb", "/a\0"])
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(RefusedError) as caught:
        Config().mapped(path)
    assert caught.value.hint
