"""The command line: output, exit codes, and no tracebacks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from netem.cli import main
from netem.profile import Profile
from netem.report import rows

ROUTER = ["--net-a", "10.1.0.0/24", "--net-b", "10.2.0.0/24"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nonsense"], 2, "No such command"),
        (["run"], 2, "Missing argument"),
        (["run", "--rtt", "120", "--", "true"], 2, "has no unit"),
        (["run", "--colour", "red", "--", "true"], 2, "No such option"),
        (["run", "--sysctl", "x", "--", "true"], 2, "not NAME=VALUE"),
        (["calibrate", "--loss", "200%"], 2, "more than 100%"),
        (["calibrate", "--duration", "3"], 2, "has no unit"),
        (["calibrate", "--duration", "0"], 2, "--duration 0: it must be"),
        (["calibrate", "--duration", "3601s"], 2, "--duration 3601s: it must be"),
        (["tc", "print"], 2, "--dev"),
        (["tc", "apply", "--dev", "lo", "--on", "/nowhere/ssh x"], 1, "cannot run /nowhere/ssh"),
        (["dummynet", "print", "--net-a", "x", "--net-b", "10.2.0.0/24"], 1, "not a network"),
        (["dummynet", "print", *ROUTER, "--rtt", "1.5ms"], 2, "whole milliseconds"),
        (["dummynet", "print", *ROUTER, "--rate", "10gbit"], 2, "cannot keep a rate of 10gbit"),
        (["dummynet", "print", *ROUTER[:2]], 2, "Missing option '--net-b'"),
        (["dummynet", "undo", "--on", "false"], 1, "the router refused"),
        (["dummynet", "apply", *ROUTER, "--on", "false"], 1, "the router refused"),
    ],
)
def test_errors(words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("netem: error: ")
    assert message in output.err
    assert "Traceback" not in output.err


@pytest.mark.parametrize("words", [[], ["tc"], ["dummynet"]])
def test_without_a_command_the_help_is_shown_plainly(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert main([*words, "--help"]) == 0
    assert (shown.out, shown.err) == ("", capsys.readouterr().out)


def test_the_hint_names_the_command_that_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tc", "print", "--colour"]) == 2
    assert capsys.readouterr().err.splitlines()[1] == "netem: hint: netem tc print --help"


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


def test_tc_on_this_machine_works_or_is_refused_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
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


def test_clean_finds_no_namespace_of_a_living_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--dry-run"]) == 0
    for name in capsys.readouterr().out.splitlines():
        assert not os.path.exists(f"/proc/{name.split('-')[2]}")
