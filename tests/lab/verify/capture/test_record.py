"""The recorder captures every packet of a real link, and the check can read the capture."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("scapy", reason="scapy is not installed")

from lab.verify.content.canary import make_canaries
from lab.verify.judge.check import check_capture
from lab.verify.judge.explain import Expect
from netem.profile import Profile
from netem.two_hosts import TwoHosts
from tests.helpers.program import ROOT
from tests.helpers.wire import recording, send

CANARIES = make_canaries(1, "record")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and packet sockets need root")
@pytest.mark.parametrize("rate", [None, 100_000_000])
def test_a_transfer_is_recorded_without_holes(tmp_path: Path, rate: int | None) -> None:
    path = tmp_path / "x.pcap"
    data = os.urandom(3_000_000) + CANARIES[0] + os.urandom(1_000_000)
    with TwoHosts(Profile(rtt=0.002, rate_bits=rate), "rec") as hosts, recording(hosts, path) as counts:
        send(hosts, 7000, data)
    finding = check_capture(path, CANARIES, Expect(frozenset(), kinds=frozenset({"tcp/7000"})))
    assert counts["packets"] == finding.packets
    assert finding.complete and finding.payload_bytes == len(data)
    assert [(hit.spelling, hit.offset) for hit in finding.hits] == [("raw", 3_000_000)]
    assert finding.not_noise == 0  # 48 letters among 64 KiB of noise are too few to show


def run(*words: str) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, "-m", "lab.verify.capture.record", *words)
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_an_interface_that_cannot_be_recorded_is_a_one_line_error(tmp_path: Path) -> None:
    done = run("nosuch0", str(tmp_path / "y.pcap"))
    assert done.returncode == 2
    assert done.stderr.startswith("capture: error: ") and done.stderr.count("\n") == 1
