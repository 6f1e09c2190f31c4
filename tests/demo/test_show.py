"""What the demo shows: the table in 80 columns, the page, the picture, and its doubts."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scapy", reason="the demo's check needs the lab extra")

from rich.console import Console

from demo import DemoError, facts, page, seconds, size
from demo.bench import Outcome
from demo.image import Image
from demo.screen import Terminal, readable, sooner
from demo.wire import Proof
from demo.world import Traffic, link_profile
from lab.verify.judge.check import Finding, Hit
from netem.profile import Profile

QUIET = Finding(
    packets=9000, wire_bytes=10**8, payload_bytes=9 * 10**7, kinds={"tcp/22": [9000, 10**8]}, judged=1500
)
LOUD = Finding(packets=9, kinds={"tcp/9000": [9, 9]}, hits=[Hit(0, "raw", "a > b", 1)], judged=2, not_noise=2)


def outcome(key: str, title: str, taken: float, **more: object) -> Outcome:
    values: dict[str, Any] = {
        "phases": [("compress", taken * 0.7), ("scp", taken * 0.3)],
        "cpu_here": 123.4,
        "cpu_there": 56.7,
        "traffic": Traffic(1_234_567_890, 0.0001, 0.002, 0),
        "whole": True,
        "finding": QUIET,
    }
    return Outcome(title, f"the <words> of {key}", key=key, **(values | more))


def outcomes() -> list[Outcome]:
    return [
        outcome("paper", "the paper's way", 754.3),
        outcome("zstd", "zstd over ssh", 118.4),
        Outcome("rsync over ssh", "rsync", key="rsync", left_out="rsync is not installed"),
        outcome(
            "xenplugin", "xenplugin", 100.2, detail={"cipher": "aes-128-gcm", "phases": {"connect": 1.0, "go": 2}}
        ),
        outcome("xenplugin-again", "xenplugin, again", 2.5, extra=True, whole=False, finding=LOUD),
    ]


PROOF = Proof(LOUD, frozenset())
IMAGE = Image(Path("/x"), "Debian", 2 << 30, 500_000_000, "ab" * 32, [b"x" * 48] * 4, [1] * 4)


@pytest.mark.parametrize("width", [80, 110, 200])
def test_table_fits_and_nothing_is_cut(width: int) -> None:
    out = io.StringIO()
    Terminal(Console(file=out, width=width)).table(outcomes(), PROOF)
    text = out.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for words in ("7.5 x", "754 s", "1.23 GB", "123 + 57", "DIFFERS", "SECRETS", "nothing", "all of it"):
        assert words in text
    assert "rsync" not in text
    assert ("█" in text) == (width > 100)


def test_a_proof_that_failed_is_seen() -> None:
    out = io.StringIO()
    Terminal(Console(file=out, width=120)).table(outcomes(), Proof(LOUD, frozenset({"gzip"})))
    assert "missed: gzip" in out.getvalue()


def test_the_speed_up_compares_with_the_first_way_only() -> None:
    run = outcomes()
    assert [sooner(each, run[0]) for each in (run[0], run[1], run[4])] == ["", "6.4 x", ""]


def test_an_incomplete_capture_proves_nothing() -> None:
    run = outcomes()
    assert readable(run[0]) == ("nothing", True)
    run[0].unrecorded = 1
    assert readable(run[0])[1] is None
    assert readable(outcome("x", "x", 1, finding=LOUD))[1] is False
    assert readable(outcome("x", "x", 1, finding=Finding(packets=1, judged=1, not_noise=1)))[1] is False


def test_doubtful_measurements_are_explained() -> None:
    assert facts.doubts(outcomes()) == []
    late = outcome("x", "x", 1, traffic=Traffic(1, 0.01, 0.05, 0), steal=0.3, unrecorded=2)
    assert len(facts.doubts([late])) == 4


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    profile = Profile(rtt=0.12, rate_bits=200_000_000)
    paths = page.write(tmp_path, profile, IMAGE, "two hosts", outcomes(), PROOF)
    text = paths[0].read_text(encoding="utf-8")
    assert paths[0].name == "report.html"
    for words in ("the &lt;words&gt; of zstd", "7.5", "120 ms round trip, 200 Mbit/s", "rsync is not installed"):
        assert words in text
    assert "DEMO_RTT=120ms DEMO_RATE=200mbit make demo" in text
    assert "<svg" in text and "{{" not in text and "{%" not in text
    assert not re.search(r"(src|href)=\"(?!#)|url\((?!#)|@import|https?:", text)


def test_the_chart_is_drawn(tmp_path: Path) -> None:
    paths = page.write(tmp_path, Profile(), IMAGE, "two hosts", outcomes(), PROOF)
    assert paths[1].name == "times.png"
    assert paths[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("rtt", "rate", "expected"),
    [
        ("", "", Profile(rtt=0.12, rate_bits=200_000_000)),
        ("120ms", "1gbit", Profile(rtt=0.12, rate_bits=10**9)),
        ("0", "unlimited", Profile()),
        ("0.2s", "100Mbit/s", Profile(rtt=0.2, rate_bits=10**8)),
    ],
)
def test_link_from_the_environment(rtt: str, rate: str, expected: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_RTT", rtt)
    monkeypatch.setenv("DEMO_RATE", rate)
    assert link_profile() == expected


@pytest.mark.parametrize(
    ("rtt", "rate"),
    [("20", "1gbit"), ("120ms", "50"), ("far", "1gbit"), ("120ms", "fast"), ("120ms", "0"), ("-1ms", "1gbit")],
)
def test_an_invalid_link_is_reported_in_one_sentence(rtt: str, rate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_RTT", rtt)
    monkeypatch.setenv("DEMO_RATE", rate)
    with pytest.raises(DemoError) as error:
        link_profile()
    assert "\n" not in str(error.value)


def test_sizes_and_times_are_readable() -> None:
    assert [size(count) for count in (5, 999, 1000, 123_456, 545_000_000, 2**31)] == [
        "5 B",
        "999 B",
        "1.0 kB",
        "123 kB",
        "545 MB",
        "2.15 GB",
    ]
    assert [seconds(value) for value in (0.04, 99.9, 100, 125.4)] == ["0.0 s", "99.9 s", "1 min 40 s", "2 min 05 s"]
