"""A whole small experiment on namespaces: the real programs, a fake xl, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.hosts.provider.netns import NetnsProvider
from lab.hosts.spec import Spec, Suite

TEXT = """
ways = ["existing", "paper-partial", "live"]
rtts = ["10ms"]
rates = ["200mbit"]
repetitions = 1
[guest]
disk = "64mib"
data = ["10mb"]
memory = "16mib"
[limits]
late = "20s"
steal = "100%"
tries = 1
"""

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    if lacking := NetnsProvider.missing(Spec(provider="netns", ipsec=Suite.PAPER)):
        pytest.skip("; ".join(lacking))
    homes = {"XDG_CACHE_HOME": tmp_path / "cache", "XDG_STATE_HOME": tmp_path / "state"}
    return {**os.environ, **{key: str(path) for key, path in homes.items()}}


def run(tmp_path: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    scenario = tmp_path / "tiny.toml"
    scenario.write_text(TEXT)
    words = [sys.executable, "-m", "lab", "experiment", str(scenario), "--results", str(tmp_path / "results")]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=900)


def test_each_way_arrives_whole_and_is_done_once(tmp_path: Path, env: dict[str, str]) -> None:
    done = run(tmp_path, env)
    assert done.returncode == 0, done.stderr
    found = {}
    for path in (tmp_path / "results").glob("*.json"):
        values = json.loads(path.read_text())
        found[values["kind"]] = values["figures"]
    assert set(found) == {"existing", "paper-partial", "live"}
    for figures in found.values():
        assert figures["seconds"] > 0 and figures["router_bytes"] > 1 << 20 and figures["phases"]
        assert "discarded" not in figures and figures["timeline"]
    assert set(found["live"]["sha256"]) == {"disk", "memory"} and set(found["existing"]["sha256"]) == {"memory"}
    assert found["live"]["written"], "the guest wrote nothing while it was moved"
    assert found["paper-partial"]["downtime"] == found["paper-partial"]["seconds"]
    live = found["live"]
    assert 0 < live["downtime"] < live["seconds"]
    # Holes are not sent. How much noise measures the link, and what the guest writes, is the machine's affair.
    assert live["disk"]["data"] < live["disk"]["size"] / 3
    assert live["router_bytes"] < live["memory"]["stream"] + live["disk"]["size"]
    again = run(tmp_path, env)
    assert again.returncode == 0 and "0 runs done, 3 before" in again.stderr
    loops = subprocess.run(["losetup", "-a"], capture_output=True, text=True).stdout
    assert str(tmp_path) not in loops
    assert not list((tmp_path / "cache").rglob("work-*"))
