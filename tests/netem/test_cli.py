"""The command line: what it prints, which code it ends with, and that nobody ever sees a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from netem import netns
from netem.cli import main
from netem.profile import Profile
from netem.report import rows

ROUTER = ["--net-a", "10.1.0.0/24", "--net-b", "10.2.0.0/24"]
needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="no /dev/net/tun"),
]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nonsense"], 2, "No such command"),
        (["run"], 2, "Missing argument"),
        (["run", "--rtt", "120", "--", "true"], 2, "has no unit"),
        (["run", "--colour", "red", "--", "true"], 2, "No such option"),
        (["run", "--sysctl", "x", "--", "true"], 2, "no NAME=VALUE"),
        (["calibrate", "--loss", "200%"], 2, "more than 100%"),
        (["calibrate", "--relay", "--loss", "1%"], 2, "neither loss nor jitter"),
        (["calibrate", "--seconds", "0"], 2, "--seconds"),
        (["tc", "print"], 2, "--dev"),
        (["tc", "apply", "--dev", "lo", "--on", "/nowhere/ssh x"], 1, "cannot run /nowhere/ssh"),
        (["dummynet", "print", "--net-a", "x", "--net-b", "10.2.0.0/24"], 1, "no network"),
        (["dummynet", "print", *ROUTER, "--rtt", "1.5ms"], 2, "whole milliseconds"),
        (["dummynet", "apply", *ROUTER, "--on", "false"], 1, "the router refused"),
    ],
)
def test_errors(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("netem: error: ")
    assert said in output.err
    assert "Traceback" not in output.err


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["calibrate", "-h"], ["dummynet", "print", "-h"]])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert "Usage: netem" in capsys.readouterr().out


def test_tc_print(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tc", "print", "--dev", "e1", "--dev", "e2", "--rtt", "120ms"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[4] for line in lines] == ["e1", "e2"]
    assert all("delay 60ms" in line for line in lines)
    assert main(["tc", "print", "--dev", "e1", "--undo"]) == 0
    assert capsys.readouterr().out == "tc qdisc del dev e1 root\n"


def test_tc_here_is_refused_in_one_sentence_or_works(capsys: pytest.CaptureFixture[str]) -> None:
    """On a device that does not exist, so that nothing changes where the kernel has netem."""
    assert main(["tc", "apply", "--dev", "nowhere0", "--rtt", "10ms"]) == 1
    assert capsys.readouterr().err.count("netem: error: ") == 1


def test_dummynet_print_is_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    for extra in ([], ["--undo"]):
        assert main(["dummynet", "print", *ROUTER, "--rtt", "120ms", "--rate", "100mbit", *extra]) == 0
        script = capsys.readouterr().out
        assert script.startswith("#!/bin/sh\n")
        assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0


def test_python_m_netem() -> None:
    done = subprocess.run([sys.executable, "-m", "netem", "run"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("netem: error: ")


def test_a_closed_pipe_is_no_traceback() -> None:
    line = f"{sys.executable} -m netem tc print --dev e1 --rtt 1ms | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_the_table_shows_asked_beside_measured() -> None:
    late = {"count": 1, "p50": 0.0, "p99": 0.001, "max": 0.002}
    result = {
        "profile": Profile.parse(rtt="120ms", rate="200mbit", loss="1%").as_dict(),
        "rtt": {"rounds": 5, "min": 0.12, "median": 0.1206, "p99": 0.121},
        "rate": 199.5e6,
        "connections": 4,
        "loss": {"a_to_b": {"packets": 100, "lost": 2, "predicted": 2}},
        "dropped": 7,
        "overrun": 3,
        "lateness": {"a_to_b": late},
        "cpu": {"share": 0.2, "seconds_per_gb": 7.0},
        "steal": {"share": 0.05},
    }
    table = {what: (asked, measured) for what, asked, measured in rows(result)}
    assert table["round trip, median"] == ("120.00 ms", "120.60 ms")
    assert table["rate, 4 connections"] == ("200.00 Mbit/s", "199.50 Mbit/s")
    assert table["lost a to b"] == ("1%: 2 of 100", "2 packets")
    assert table["dropped before the emulator"] == ("0", "3 frames")


@pytest.mark.parametrize("way", [pytest.param("run", marks=needs_root)])
def test_run_gives_the_command_its_link(way: str, tmp_path: object) -> None:
    script = (
        '[ "$(ip netns identify $$)" = "$NETEM_A" ] || exit 1; ip netns list | grep -q "$NETEM_B" || exit 2;'
        'ip route get "$NETEM_ADDRESS_B" | grep -q wan || exit 3; exit 7'
    )
    file = f"{tmp_path}/stats.json"
    words = [way, "--rtt", "4ms", "--stats", file, "--", "sh", "-c", script]
    done = subprocess.run([sys.executable, "-m", "netem", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")
    with open(file, encoding="utf-8") as stats:
        assert json.load(stats)["profile"]["rtt"] == 0.004


@pytest.mark.parametrize("relay", [True, pytest.param(False, marks=needs_root)], ids=["relay", "namespaces"])
def test_calibrate_measures_at_least_the_rtt_and_at_most_the_rate(
    relay: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    before = netns.names()
    words = ["calibrate", "--rtt", "10ms", "--rate", "20mbit", "--seconds", "0.5", "--connections", "2", "--json"]
    assert main(words + ["--relay"] * relay) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["method"] == ("relay" if relay else "tun")
    assert result["rtt"]["min"] >= 0.01
    # What is counted in a window may have been waiting for it for as long as the emulator was late.
    late = result["lateness"]["a_to_b"]["max"]
    assert 0 < result["rate"] <= 20e6 * (1 + (late + 0.01) / 0.5)
    assert [name for name in netns.names() if name not in before and name.startswith("nc-")] == []


def test_clean_finds_nothing_of_the_living(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--dry-run"]) == 0
    for name in capsys.readouterr().out.splitlines():
        assert not os.path.exists(f"/proc/{name.split('-')[2]}")
