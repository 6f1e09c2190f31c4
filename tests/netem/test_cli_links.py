"""The commands that bring a link up: `netem run` and `netem calibrate`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from netem import netns
from netem.cli import main
from tests.helpers.namespaces import needs_namespaces

pytestmark = needs_namespaces


def test_run_gives_the_command_its_link(tmp_path: Path) -> None:
    script = (
        '[ "$(ip netns identify $$)" = "$NETEM_A" ] || exit 1; ip netns list | grep -q "$NETEM_B" || exit 2;'
        'ip route get "$NETEM_ADDRESS_B" | grep -q wan || exit 3; exit 7'
    )
    file = tmp_path / "stats.json"
    words = ["run", "--rtt", "4ms", "--stats", str(file), "--", "sh", "-c", script]
    done = subprocess.run([sys.executable, "-m", "netem", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")
    assert json.loads(file.read_text(encoding="utf-8"))["profile"]["rtt"] == 0.004


def test_calibrate_measures_at_least_the_rtt_and_at_most_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    before = netns.names()
    words = [
        "calibrate",
        "--rtt",
        "10ms",
        "--rate",
        "20mbit",
        "--duration",
        "500ms",
        "--connections",
        "2",
        "--json",
    ]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["method"] == "tun"
    assert result["rtt"]["min"] >= 0.01
    # What is counted in a window may have been waiting for it for as long as the emulator was late.
    late = result["lateness"]["a_to_b"]["max"]
    assert 0 < result["rate"] <= 20e6 * (1 + (late + 0.01) / 0.5)
    assert [name for name in netns.names() if name not in before and name.startswith("nc-")] == []
