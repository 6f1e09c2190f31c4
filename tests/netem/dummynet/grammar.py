"""A checker for the part of ipfw(8)'s grammar that netem uses, with the limits of sbin/ipfw/dummynet.c."""

from __future__ import annotations

import ipaddress
import re

_SCALES = {"": 1, "K": 1000, "M": 10**6}


def check_ipfw(words: list[str], limits: dict[str, int]) -> None:
    """ipfw(8), the part used here: raises AssertionError for what ipfw would refuse or misread.

    ipfw [-q] add [number] [set number] action [proto from src to dst] [options]
    ipfw pipe number config [bw B] [delay ms] [queue N | NKbytes] [plr P]
    """
    assert words.pop(0) == "ipfw"
    if words[0] == "-q":
        words.pop(0)
    verb = words.pop(0)
    if verb == "pipe":
        assert 0 < int(words.pop(0)) < 65535
        assert words.pop(0) == "config"
        check_pipe_options(words, limits)
    else:
        assert verb == "add"
        check_rule(words)


def check_pipe_options(words: list[str], limits: dict[str, int]) -> None:
    seen = set()
    while words:
        option, value = words.pop(0), words.pop(0)
        assert option not in seen
        seen.add(option)
        if option == "bw":
            match = re.fullmatch(r"([0-9]+)([KM]?)bit/s", value)
            assert match and 0 < int(match[1]) * _SCALES[match[2]] < limits.get("bw", (1 << 32) - 1)
        elif option == "delay":
            assert value.isdecimal() and int(value) <= 10_000
        elif option == "queue":
            match = re.fullmatch(r"([0-9]+)(Kbytes)?", value)
            assert match
            if match[2]:
                assert 1500 <= int(match[1]) * 1024 <= limits["byte"], "queue size must be < ...B"
            else:
                assert 2 <= int(value) <= limits["slots"], "2 <= queue size <= ..."
        elif option == "plr":
            assert re.fullmatch(r"[01](\.[0-9]+)?", value) and 0 < int(float(value) * 0x7FFFFFFF) <= 0x7FFFFFFF
        else:
            raise AssertionError(f"unrecognised option {option}")


def check_rule(words: list[str]) -> None:
    if words[0].isdecimal():
        assert 1 <= int(words.pop(0)) <= 65534
    if words[0] == "set":
        words.pop(0)
        assert 0 <= int(words.pop(0)) <= 30
    action = words.pop(0)
    assert action in ("allow", "pipe")
    if action == "pipe":
        assert 0 < int(words.pop(0)) < 65535
    proto, source, destination = words.pop(0), words[1], words[3]
    assert [words[0], words[2]] == ["from", "to"]
    for address in (source, destination):
        if address != "any":
            assert ipaddress.ip_network(address).version == (6 if proto == "ip6" else 4)
    assert words[4:] in ([], ["in"])
