"""The wire check on real ESP: the same transfer with and without IPsec, captured on the link."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("scapy", reason="scapy is not installed")
pytest.importorskip("numpy", reason="numpy is not installed")

from lab.hosts.guest import canaries
from lab.hosts.lifecycle.lab import Lab
from lab.hosts.role import swan
from lab.hosts.role.capture import record_all, recording, recording_at
from lab.hosts.role.swan_proof import exchange
from lab.hosts.spec import Suite
from lab.verify.judge.check import Finding, check_capture
from lab.verify.judge.explain import EXPECTED, Expect
from lab.verify.judge.verdict import Verdict, judged
from tests.helpers.labs import change

pytestmark = [pytest.mark.root, pytest.mark.lab]
A, B = swan.ends("tunnel")
_LISTEN = """
import socket, sys
with socket.create_server((sys.argv[1], 7000)) as server:
    print("ready", flush=True)
    with server.accept()[0] as caller:
        while caller.recv(1 << 16):
            pass
"""
_SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000), 60) as out:
    out.sendall(sys.stdin.buffer.read())
"""


def send(lab: Lab, data: bytes) -> None:
    """Send `data` from host-a to host-b over TCP."""
    listen = lab.node("host-b").popen([sys.executable, "-c", _LISTEN, B.address], stdout=subprocess.PIPE)
    assert listen.stdout is not None and listen.stdout.readline() == b"ready\n"
    alarm = threading.Timer(120, listen.kill)
    alarm.start()
    sender = lab.node("host-a").popen([sys.executable, "-c", _SEND, B.address], stdin=subprocess.PIPE)
    sender.communicate(data, timeout=120)
    assert (sender.returncode, listen.wait()) == (0, 0)
    alarm.cancel()
    listen.stdout.close()


def sent(lab: Lab, data: bytes, path: Path) -> Finding:
    """Send `data` from host-a to host-b over TCP, and return what the check finds in the capture."""
    record_all(lab.provider, path, lambda: send(lab, data))
    return check_capture(path, canaries.DISK, Expect(EXPECTED["esp"]))


@pytest.mark.parametrize("suite", list(Suite))
def test_esp_shows_nothing_and_plain_tcp_everything(netns_ipsec_lab: Lab, suite: Suite, tmp_path: Path) -> None:
    change(netns_ipsec_lab, ipsec=suite)
    data = canaries.lines(canaries.DISK) + os.urandom(200_000) + b"all work and no play\n" * 20_000
    finding = sent(netns_ipsec_lab, data, tmp_path / "x.pcap")
    if suite is Suite.OFF:
        assert judged(finding, "plain")[0] is Verdict.PROVED and judged(finding, "esp")[0] is Verdict.OPEN
        assert finding.spellings == {"raw"} and finding.strangers.keys() == {"tcp/7000"}
    else:
        assert judged(finding, "esp") == (Verdict.PROVED, [])
        assert finding.payload_bytes > len(data) and finding.judged > 100


def test_nothing_is_dropped_while_tcpdump_gets_no_cpu_time(netns_ipsec_lab: Lab, tmp_path: Path) -> None:
    change(netns_ipsec_lab, ipsec=Suite.TODAY)
    node = netns_ipsec_lab.node("host-a")
    with recording(netns_ipsec_lab.provider, tmp_path / "x.pcap") as counts:
        node.check(["sh", "-c", "kill -STOP $(cat /run/xenlab.pcap.pid)"])
        send(netns_ipsec_lab, os.urandom(2_000_000))
        node.check(["sh", "-c", "kill -CONT $(cat /run/xenlab.pcap.pid)"])
    assert counts.packets > 1000 and counts.dropped == 0


def test_the_key_exchange_is_known(netns_ipsec_lab: Lab, tmp_path: Path) -> None:
    """Packets of strongSwan before there is ESP, of ping inside and outside of ESP, and of neighbour discovery."""
    change(netns_ipsec_lab, ipsec=Suite.OFF)
    node = netns_ipsec_lab.node("host-a")
    with recording_at(node, tmp_path / "x.pcap", remote="/run/ike.pcap") as counts:
        change(netns_ipsec_lab, ipsec=Suite.TODAY)
        exchange(node, B.address)
    assert counts.dropped == 0
    finding = check_capture(tmp_path / "x.pcap", canaries.DISK, Expect(EXPECTED["any"]))
    assert {"udp/500 ike", "udp/4500 ike", "udp/4500 esp", "icmp"} <= finding.kinds.keys()
    assert judged(finding, "esp") == (Verdict.PROVED, [])
