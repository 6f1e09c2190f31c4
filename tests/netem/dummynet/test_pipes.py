"""ipfw's commands: against ipfw(8)'s grammar, and against what FreeBSD was recorded with."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netem.dummynet import Router, notes
from netem.dummynet.pipes import (
    BYTE_LIMIT,
    LARGEST_RATE,
    OLD_LARGEST_RATE,
    SLOT_LIMIT,
    delays,
    limits,
    most_packets,
    pipes,
    rule_commands,
    settings,
)
from netem.errors import BackendError, ProfileError
from netem.profile import Profile

from .grammar import check_ipfw
from .oracle import Case, cases

ROUTER = Router("10.1.0.0/24", "10.2.0.0/24")


def commands(router: Router, profile: Profile) -> list[list[str]]:
    return [pipe.config() for pipe in pipes(router, profile)] + rule_commands(router)


@pytest.mark.parametrize(
    "bad",
    [
        "ipfw pipe 1 config delay 60 bw 100Mbit/s queue 1000",
        "ipfw pipe 1 config delay 60 bw 10000Mbit/s",
        "ipfw pipe 1 config delay 60 bw 4294967295bit/s",
        "ipfw pipe 1 config delay 60 queue 2000Kbytes",
        "ipfw pipe 1 config delay 10001",
        "ipfw pipe 1 config jitter 5",
        "ipfw pipe 1 config plr 2",
        "ipfw pipe 1 config plr 0.0000000001",
        "ipfw add 100 pipe 1 ip from 10.1.0.0/24 in",
        "ipfw add 100 set 32 pipe 1 ip from any to any",
    ],
)
def test_the_checker_refuses_what_ipfw_refuses_or_misreads(bad: str) -> None:
    with pytest.raises((AssertionError, IndexError)):
        check_ipfw(bad.split(), {"byte": 1 << 20, "slots": 100})


@given(
    rtt=st.integers(0, 20_000).map(lambda ms: ms / 1000),
    rate=st.none() | st.integers(1, LARGEST_RATE) | st.integers(1, 4294).map(lambda mbit: mbit * 10**6),
    loss=st.just(0.0) | st.floats(1e-9, 1),
    queue=st.none() | st.integers(1500, 1 << 30),
    pipe=st.integers(1, 65533),
    rule=st.integers(1, 64998),
    nets=st.sampled_from([("10.1.0.0/24", "10.2.0.0/16"), ("fd00:1::/64", "fd00:2::7")]),
)
def test_every_profile_follows_the_grammar(
    rtt: float,
    rate: int | None,
    loss: float,
    queue: int | None,
    pipe: int,
    rule: int,
    nets: tuple[str, str],
) -> None:
    profile = Profile(rtt=rtt, rate_bits=rate, loss=loss, queue=queue)
    router = Router(*nets, pipe, rule)
    try:
        found = commands(router, profile)
    except ProfileError as error:
        assert "queue" in error.message and rate is not None  # rtt x rate is too much for an int
        return
    raised = limits(profile)
    for command in found:
        check_ipfw(list(command), {"byte": raised[BYTE_LIMIT], "slots": raised[SLOT_LIMIT]})
    shown = [dict(zip(words[4::2], words[5::2], strict=True)) for words in found[:2]]
    assert sum(int(each["delay"]) for each in shown) == round(rtt * 1000)
    for each in shown:
        assert ("bw" in each, "plr" in each) == (rate is not None, loss > 0)
        assert int(each["queue"].removesuffix("Kbytes")) * 1024 >= (profile.queue_bytes or 0)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.words)
def test_the_commands_are_those_that_freebsd_was_recorded_with(case: Case) -> None:
    """Rates that FreeBSD 13.0 read back wrong (10 Gbit/s became 1.41) are refused."""
    rate = case.profile.rate_bits
    if rate is not None and rate > LARGEST_RATE:
        assert case.code == 0 and not re.search(rf"^\d+: +{rate / 1e9:.3f} Gbit/s", case.pipe_show, re.MULTILINE)
        with pytest.raises(ProfileError, match="cannot keep a rate"):
            commands(case.router, case.profile)
    else:
        assert commands(case.router, case.profile) == case.commands
        assert (case.code == 0) == (rate is None or rate <= OLD_LARGEST_RATE)


@pytest.mark.parametrize("case", [each for each in cases() if not each.code], ids=lambda case: case.words)
def test_the_rules_are_listed_as_they_were_added(case: Case) -> None:
    added = [f"{int(words[3]):05} {' '.join(words[6:])}" for words in rule_commands(case.router)]
    assert case.rules[:2] == added


def test_settings_follow_the_ip_version() -> None:
    assert settings(ROUTER) == {"net.inet.ip.fw.one_pass": 1, "net.inet.ip.forwarding": 1}
    assert "net.inet6.ip6.forwarding" in settings(Router("fd00:1::/64", "fd00:2::/64"))


def test_an_odd_rtt_is_split_and_reported() -> None:
    profile = Profile.parse(rtt="121ms")
    assert delays(profile) == (61, 60)
    assert "61 ms from a to b, 60 ms from b to a" in notes(profile)[0]
    assert notes(Profile.parse(rtt="120ms")) == []


def test_packets_are_counted_in_both_delays_and_both_queues() -> None:
    # 12.5 MB each way in flight at 1 Gbit/s and 200 ms RTT, and two queues of 25 MB.
    assert most_packets(Profile.parse(rtt="200ms", rate="1gbit")) == pytest.approx(75e6 / 1500, rel=0.001)
    assert most_packets(Profile.parse(rtt="1s", rate="1gbit", queue="1500b")) > 83_333
    assert most_packets(Profile.parse(rtt="200ms")) == 0


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (Profile.parse(rtt="120.5ms"), "whole milliseconds"),
        (Profile.parse(rtt="21s"), "10000 ms"),
        (Profile.parse(rtt="20ms", jitter="1ms"), "no jitter"),
        (Profile.parse(rate="1gbit", queue="4gib"), "cannot hold"),
        (Profile.parse(rate="4294967295bit"), "cannot keep a rate of 4294967295bit: 4294967294 bit/s is the most"),
        (Profile.parse(rate="10gbit"), "cannot keep a rate of 10gbit"),
        (Profile(loss=1e-10), "would become 0"),
    ],
)
def test_profiles_that_dummynet_cannot_do_are_refused(profile: Profile, words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        pipes(ROUTER, profile)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("10.1.0.0/24", "fd00::/64"), "same IP version"),
        (("10.1.0.5/24", "10.2.0.0/24"), "not a network"),
        (("$(reboot)", "10.2.0.0/24"), "not a network"),
        (("10.1.0.0/24", "10.2.0.0/24", 0), "pipe 0"),
        (("10.1.0.0/24", "10.2.0.0/24", 65534), "pipe 65534"),
        (("10.1.0.0/24", "10.2.0.0/24", 1, 65535), "rule 65535"),
    ],
)
def test_invalid_routers(words: tuple[str, str], message: str) -> None:
    with pytest.raises(BackendError, match=re.escape(message)):
        Router(*words)
