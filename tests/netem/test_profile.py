"""Units and profiles: texts that are accepted and refused, and the messages."""

from __future__ import annotations

from typing import Any

import pytest

from netem import units
from netem.errors import NetemError, ProfileError, UnitError
from netem.profile import SMALLEST_QUEUE, Profile


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120ms", 0.12),
        ("1.5s", 1.5),
        ("30us", 3e-5),
        ("30µs", 3e-5),
        ("0", 0.0),
        (" 5 MS ", 0.005),
        ("0s", 0.0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert units.parse_time(text) == seconds


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("200mbit", 200_000_000),
        ("1Gbit/s", 10**9),
        ("1.5kbit", 1500),
        ("9bit", 9),
        ("unlimited", None),
        ("NONE", None),
    ],
)
def test_rates(text: str, rate: int | None) -> None:
    assert units.parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "size"), [("64kib", 65536), ("2MiB", 2 << 20), ("1500b", 1500), ("1500B", 1500), ("auto", None)]
)
def test_sizes(text: str, size: int | None) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.1%", 0.001), ("0", 0.0), ("100%", 1.0)])
def test_shares(text: str, share: float) -> None:
    assert units.parse_share(text) == share


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("rtt", "120", "no unit"),
        ("rtt", "fast", "is not a time"),
        ("rtt", "-5ms", "is not a time"),
        ("rtt", "5mbit", "not a unit of a time"),
        ("rtt", "", "is not a time"),
        ("rtt", "1e99s", "at most 600 s"),
        ("rate", "10mbps", "not a unit of a rate"),
        ("rate", "0mbit", "carries nothing"),
        ("rate", "0.3bit", "whole number"),
        ("rate", "1e999gbit", "at most 100000gbit"),
        ("queue", "64kb", "not a unit of a size"),
        ("queue", "100b", "never fits"),
        ("loss", "0.5", "no unit"),
        ("loss", "101%", "more than 100%"),
        ("rate", "1e9999bit", "is not a rate"),
        ("seed", "one", "not a whole number"),
        ("seed", "-1", "64 bits"),
    ],
)
def test_refusals_say_what_is_wrong(field: str, text: str, words: str) -> None:
    with pytest.raises(ProfileError, match=words) as caught:
        Profile.parse(**{field: text})
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, NetemError)
    assert caught.value.code == 2


def test_ambiguous_unit_names_the_right_ones() -> None:
    with pytest.raises(UnitError) as caught:
        units.parse_rate("10mbps")
    assert "mbit" in (caught.value.hint or "")


def test_jitter_must_fit_the_one_way_delay() -> None:
    Profile(rtt=0.1, jitter=0.05)
    with pytest.raises(ProfileError, match="half the rtt"):
        Profile(rtt=0.1, jitter=0.051)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1])
@pytest.mark.parametrize("name", ["rtt", "jitter", "loss"])
def test_numbers_out_of_range(name: str, value: float) -> None:
    given: dict[str, Any] = {name: value}
    with pytest.raises(ProfileError, match=name):
        Profile(**given)


def test_the_default_queue_is_sensible() -> None:
    assert Profile(rtt=0.1).queue_bytes is None
    assert Profile(rtt=0.1, rate_bits=200_000_000).queue_bytes == 2_500_000
    assert Profile(rtt=0.001, rate_bits=1_000_000).queue_bytes == SMALLEST_QUEUE
    assert Profile(rtt=0.1, rate_bits=200_000_000, queue=64 << 10).queue_bytes == 65536


def test_from_dict_refuses_unknown_keys() -> None:
    with pytest.raises(ProfileError, match="colour"):
        Profile.from_dict({"rtt": 0.1, "colour": 1})
    with pytest.raises(ProfileError, match="wrong type"):
        Profile.from_dict({"rtt": "fast"})


def test_a_profile_is_shown_as_text() -> None:
    profile = Profile.parse(rtt="120ms", rate="200mbit", loss="0.1%")
    assert str(profile) == "rtt 120ms, rate 200mbit, loss 0.1%, seed 1"
    assert profile.options() == ["--rtt", "120ms", "--rate", "200mbit", "--loss", "0.1%"]
    assert profile.one_way == 0.06
