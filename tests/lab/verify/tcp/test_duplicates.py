"""A capture of all devices of a router contains each packet twice; such duplicates are not tested again."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scapy", reason="scapy is not installed")
pytest.importorskip("numpy", reason="numpy is not installed")

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import CookedLinux
from scapy.utils import PcapWriter

from lab.hosts.guest import canaries
from lab.verify.judge.check import Finding, check_capture
from lab.verify.judge.explain import EXPECTED, Expect
from lab.verify.judge.verdict import Verdict, judged
from tests.helpers.wire import A, B, noise, write


def check(tmp_path: Path, packets: list[Any], expect: str = "esp") -> Finding:
    return check_capture(write(tmp_path / "x.pcap", packets), canaries.DISK, Expect(EXPECTED[expect]))


def esp(number: int, ttl: int = 64, over: Any = None) -> Any:
    content = struct.pack(">LL", 0xC0FFEE, number) + noise(1392, number)
    return (
        IP(src=A, dst=B, ttl=ttl, proto=50) / content
        if over is None
        else IP(src=A, dst=B, ttl=ttl) / over / content
    )


@pytest.mark.parametrize("over", [None, UDP(sport=4500, dport=4500)], ids=["esp", "esp in udp"])
@pytest.mark.parametrize("apart", [0, 1, 200])
@pytest.mark.parametrize("devices", [2, 3])
def test_packets_captured_on_several_devices_are_duplicates(
    over: Any, apart: int, devices: int, tmp_path: Path
) -> None:
    packets = []
    for number in range(300 + apart * devices):
        for device in range(devices):
            if 0 <= number - apart * device < 300:
                packets.append(esp(number - apart * device, 64 - device, over))
    finding = check(tmp_path, packets)
    assert judged(finding, "esp") == (Verdict.PROVED, [])
    assert finding.doubled == 300 * (devices - 1) and finding.packets == 300 * devices
    assert sum(counts[0] for counts in finding.kinds.values()) == finding.packets


def test_different_packets_and_endless_repetitions_are_tested(tmp_path: Path) -> None:
    packets = [esp(number) for number in range(300)]
    altered = [esp(number) for number in range(200)]
    for packet in altered:
        packet.load = packet.load[:8] + (canaries.DISK[0] * 99)[:1392]
    finding = check(tmp_path, packets + altered)
    assert finding.hits and finding.not_noise
    assert check(tmp_path, [esp(1)] * 300).not_noise


def test_unexplained_duplicates_are_counted_each_time(tmp_path: Path) -> None:
    packet = IP(src=A, dst=B) / UDP(sport=5353, dport=5353) / noise(100)
    finding = check(tmp_path, [packet] * 7)
    assert finding.strangers == {"udp/5353": 7}


def test_duplicates_in_a_cooked_capture(tmp_path: Path) -> None:
    """`tcpdump -i any` writes such captures."""
    path = tmp_path / "x.pcap"
    with PcapWriter(str(path), linktype=113, sync=True) as writer:
        for number in range(200):
            for device in (0, 4):  # to us, sent by us
                writer.write(CookedLinux(pkttype=device, proto=0x0800) / esp(number, 64 - device))
    finding = check_capture(path, canaries.DISK, Expect(EXPECTED["esp"]))
    assert judged(finding, "esp") == (Verdict.PROVED, []) and finding.doubled == 200
