"""Counting the packets between the hosts by kind."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

pytest.importorskip("scapy", reason="scapy is not installed")
pytest.importorskip("numpy", reason="numpy is not installed")

from lab.hosts.role.swan_proof import count

A, B, ROUTER = "10.71.1.10", "10.71.2.10", "10.71.1.1"


def ip(protocol: int, inside: bytes, source: str = A, target: str = B, offset: int = 0) -> bytes:
    ends = b"".join(bytes(map(int, each.split("."))) for each in (source, target))
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(inside), 1, offset, 64, protocol, 0) + ends + inside


def udp(source: int, target: int, inside: bytes) -> bytes:
    return struct.pack("!HHHH", source, target, 8 + len(inside), 0) + inside


ESP = struct.pack("!LL", 0xC0FFEE, 1) + bytes(60)
CASES = {
    "esp": ip(50, ESP),
    "esp, the second fragment": ip(50, ESP, offset=64),
    "esp in udp": ip(17, udp(4500, 4500, ESP)),
    "esp the other way": ip(50, ESP, B, A),
    "ike": ip(17, udp(500, 500, bytes(60))),
    "ike over 4500": ip(17, udp(4500, 4500, bytes(4) + ESP)),
    "ike, keeping awake": ip(17, udp(4500, 4500, b"\xff")),
    "plain icmp": ip(1, b"\x08\x00" + bytes(40)),
    "plain tcp": ip(6, struct.pack("!HHLLBBHHH", 22, 4000, 0, 0, 0x50, 0x18, 0, 0, 0) + b"secret"),
    "plain udp to a port that is not IKE's": ip(17, udp(4500, 5000, bytes(8))),
    "plain udp, the second fragment": ip(17, udp(4500, 4500, ESP), offset=64),
    "other: to the router": ip(6, bytes(20), A, ROUTER),
    "other: from itself": ip(1, bytes(8), A, A),
    "other: cut short": ip(1, b"")[:12],
    "other: IPv6": b"\x60" + bytes(60),
}


def capture(path: Path, packets: list[bytes], link: int) -> Path:
    head = b"\x02" * 12 + b"\x08\x00" if link == 1 else b""
    body = [struct.pack("=LHHlLLL", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 16, link)]
    for packet in packets:
        body.append(struct.pack("=LLLL", 0, 0, len(head + packet), len(head + packet)) + head + packet)
    path.write_bytes(b"".join(body))
    return path


@pytest.mark.parametrize("link", [1, 101], ids=["ethernet", "raw"])
@pytest.mark.parametrize("name", CASES)
def test_each_packet_is_counted_by_its_kind(name: str, link: int, tmp_path: Path) -> None:
    seen = count(capture(tmp_path / "c.pcap", [CASES[name]], link), {A}, {B})
    assert {kind for kind, packets in seen.items() if packets} == {name.split()[0].strip(":,")}


def test_a_plain_packet_among_many_is_found(tmp_path: Path) -> None:
    packets = [CASES["esp"]] * 50 + [CASES["plain tcp"]] + [CASES["ike"]] * 3
    seen = count(capture(tmp_path / "c.pcap", packets, 1), {A}, {B})
    assert seen == {"esp": 50, "ike": 3, "plain": 1, "other": 0}


def test_other_protocols_than_ip_are_counted(tmp_path: Path) -> None:
    path = capture(tmp_path / "c.pcap", [], 1)
    arp = b"\xff" * 12 + b"\x08\x06" + bytes(46)
    path.write_bytes(path.read_bytes() + struct.pack("=LLLL", 0, 0, len(arp), len(arp)) + arp)
    assert count(path, {A}, {B})["other"] == 1
