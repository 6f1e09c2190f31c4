"""The recorder on a real link: every packet is there, and the check can read it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("scapy", reason="scapy is not installed")

from lab.verify.content.canary import make_canaries
from lab.verify.judge.check import check_capture
from lab.verify.judge.explain import Expect
from netem.emulator.tun import NAME as DEVICE
from netem.profile import Profile
from netem.two_hosts import TwoHosts

ROOT = Path(__file__).resolve().parents[4]
CANARIES = make_canaries(1, "record")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and packet sockets need root")
@pytest.mark.parametrize("rate", [None, 100_000_000])
def test_a_transfer_is_recorded_without_holes(tmp_path: Path, rate: int | None) -> None:
    path = tmp_path / "x.pcap"
    data = os.urandom(3_000_000) + CANARIES[0] + os.urandom(1_000_000)
    with TwoHosts(Profile(rtt=0.002, rate_bits=rate), "rec") as world:
        words = [sys.executable, "-m", "lab.verify.capture.record", DEVICE, str(path)]
        recorder = world.a.popen(words, cwd=ROOT, stdout=subprocess.PIPE)
        assert recorder.stdout is not None and recorder.stdout.readline() == b"recording\n"
        with world.b.call(lambda: socket.create_server((world.b.address, 7000))) as server:
            thread = threading.Thread(target=drain, args=(server,))
            thread.start()
            with world.a.call(lambda: socket.create_connection((world.b.address, 7000))) as client:
                client.sendall(data)
            thread.join()
        recorder.send_signal(signal.SIGTERM)
        counts = json.loads(recorder.communicate(timeout=30)[0])
    finding = check_capture(path, CANARIES, Expect(frozenset(), kinds=frozenset({"tcp/7000"})))
    assert counts == {"packets": finding.packets, "dropped": 0}
    assert finding.complete and finding.payload_bytes == len(data)
    assert [(hit.spelling, hit.offset) for hit in finding.hits] == [("raw", 3_000_000)]
    assert finding.not_noise == 0  # 48 letters among 64 KiB of noise do not show there


def drain(server: socket.socket) -> None:
    with server.accept()[0] as caller:
        while caller.recv(1 << 16):
            pass


def run(*words: str) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, "-m", "lab.verify.capture.record", *words)
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_what_cannot_be_recorded_is_one_line(tmp_path: Path) -> None:
    done = run("nosuch0", str(tmp_path / "y.pcap"))
    assert done.returncode == 2
    assert done.stderr.startswith("capture: error: ") and done.stderr.count("\n") == 1
