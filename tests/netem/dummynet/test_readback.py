"""The comparison of a pipe with the one that was requested, on what FreeBSD printed."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from dataclasses import replace

import pytest

from netem.dummynet.pipes import LARGEST_RATE, Pipe, pipes
from netem.dummynet.readback import PROGRAM, variables
from tests.helpers.freebsd import AWKS

from .oracle import Case, case, cases

ANSWERED = [each for each in cases() if not each.code]


def compared(pipe: Pipe, shown: str) -> str:
    """What PROGRAM prints, the same with each awk."""
    options = [word for text in variables(pipe) for word in ("-v", text)]
    (printed,) = {_awk([name, *options, PROGRAM], shown) for name in AWKS}
    return printed


def _awk(words: list[str], text: str) -> str:
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=True, timeout=60)
    assert not done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.words)
def test_freebsd_read_back_what_was_requested(case: Case) -> None:
    """`ipfw pipe show` of both pipes, as recorded: each is found and is right. Where the rate wrapped it is not."""
    rate = case.profile.rate_bits
    wraps = rate is not None and rate > LARGEST_RATE
    kept = replace(case.profile, rate_bits=10**9, queue=case.profile.queue_bytes) if wraps else case.profile
    for pipe in pipes(case.router, kept):
        if wraps:
            pipe = dataclasses.replace(pipe, rate_bits=rate)
            assert re.fullmatch(
                rf"bandwidth is [0-9.]+ [GM]bit/s instead of {rate} bit/s", compared(pipe, case.pipe_show)
            )
        else:
            assert compared(pipe, case.pipe_show) == "same"
            assert compared(pipe, case.shown(pipe.number)) == "same"


FULL = case("--rtt 201ms --rate 100mbit")
LOSSY = case("--rtt 60ms --rate 10mbit --loss 0.1%")
UNLIMITED = case("--rtt 60ms")


@pytest.mark.parametrize(
    ("recorded", "wanted", "text"),
    [
        (FULL, {"rate_bits": 100_100_000}, "bandwidth is 100.000 Mbit/s instead of 100100000 bit/s"),
        (FULL, {"rate_bits": 99_999_000}, "bandwidth is 100.000 Mbit/s instead of 99999000 bit/s"),
        (FULL, {"rate_bits": None}, "bandwidth is 100.000 Mbit/s instead of unlimited"),
        (UNLIMITED, {"rate_bits": 1}, "bandwidth is unlimited instead of 1 bit/s"),
        (FULL, {"delay": 102}, "delay is 101 ms instead of 102 ms"),
        (FULL, {"queue": 2455}, "queue is 2454 KB instead of 2513920 B"),
        (FULL, {"loss": 0.01}, "plr is 0 instead of 0.010000000"),
        (LOSSY, {"loss": 0.0}, "plr is 0.001000 instead of 0.000000000"),
        (LOSSY, {"loss": 0.001002}, "plr is 0.001000 instead of 0.001002000"),
        (FULL, {"number": 270}, "it is missing"),
        (
            FULL,
            {"delay": 1, "queue": 1},
            "delay is 101 ms instead of 1 ms, queue is 2454 KB instead of 1024 B",
        ),
    ],
)
def test_every_difference_is_found(recorded: Case, wanted: dict[str, int], text: str) -> None:
    pipe = pipes(recorded.router, recorded.profile)[0]
    assert compared(dataclasses.replace(pipe, **wanted), recorded.pipe_show) == text


def test_other_formats_are_understood() -> None:
    """FreeBSD 12 prints no Gbit/s; low rates are in Kbit/s and bit/s; a queue may be in slots."""
    recorded = case("--rtt 1ms --rate 1gbit")
    pipe = pipes(recorded.router, recorded.profile)[0]
    shown = recorded.shown(2701)
    assert compared(pipe, shown.replace("1.000 Gbit/s", "1000.000 Mbit/s")) == "same"
    assert compared(replace(pipe, rate_bits=64_001), shown.replace("1.000 Gbit/s", "64.001 Kbit/s")) == "same"
    assert compared(replace(pipe, rate_bits=7), shown.replace("1.000 Gbit/s", "7.000 bit/s ")) == "same"
    assert compared(pipe, shown.replace("256 KB", " 50 sl.")) == "queue is 50 sl. instead of 262144 B"
    assert compared(pipe, "") == "it is missing"
    assert compared(pipe, shown.splitlines()[0]) == "it is missing"
