"""Messages that are in the clear by design are recognised by their format; text in their place is not."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scapy", reason="scapy is not installed")
pytest.importorskip("numpy", reason="numpy is not installed")

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6MLDMultAddrRec,
    ICMPv6MLReport,
    ICMPv6MLReport2,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether

from lab.hosts.guest import canaries
from lab.verify.capture.packets import Parser
from lab.verify.capture.reading import Captured
from lab.verify.content.meaning import Meaning, packet_meaning
from lab.verify.content.message_formats import error_head, ike_head
from lab.verify.judge.check import Finding, check_capture
from lab.verify.judge.explain import EXPECTED, Expect
from lab.verify.judge.verdict import Verdict, judged
from netem.profile import Profile
from netem.two_hosts import TwoHosts
from tests.helpers.wire import PREAMBLE, A, B, frame, ike, noise, recording, stream, write

ENGLISH = b"it was the best of times, it was the worst of times, it was the age of wisdom, " * 20
MANY = 700
COUNTED = bytes(range(256)) * 6
NOW = (1_760_000_000, 999_999)
SIX = IPv6(src="fd::1", dst="fd::2")
FOUR = IP(src=A, dst=B)
BACK = IP(src="10.0.0.9", dst=A)
ESP = [FOUR.copy() / UDP(sport=4500, dport=4500) / (b"\1\2\3\4" + noise(1000, seed)) for seed in range(90)]
SSH = b"SSH-2.0-x\r\n" + struct.pack(">LBB", 6, 4, 21) + bytes(4) + noise(90_000)
PLUGIN = PREAMBLE + frame(40_000)
WORKING = stream(SSH, port=22) + stream(PLUGIN, port=49300)


def meaning(packet: Any) -> Meaning | None:
    (found,) = Parser().parse(Captured(1 if isinstance(packet, Ether) else 101, bytes(packet), 1))
    return packet_meaning(found)


def ping(data: bytes) -> Any:
    return FOUR / ICMP(type=8, id=7) / data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        COUNTED[:9],
        struct.pack("<QQ", *NOW) + COUNTED[16:56],
        struct.pack("<QQ", *NOW) + COUNTED[16:1200],
        struct.pack("<LL", *NOW) + COUNTED[8:56],
        struct.pack(">LL", NOW[0], 999_999_999) + COUNTED[8:56],
    ],
    ids=["nothing", "short", "linux", "large", "32 bits", "freebsd"],
)
def test_only_the_content_of_ping_is_recognised(data: bytes) -> None:
    assert meaning(ping(data)) is Meaning.ICMP
    assert meaning(SIX / ICMPv6EchoReply(data=data)) is Meaning.ICMP
    for other in (data + b"x", data[:-1] + b"x" if data else b"x", ENGLISH[:16] + COUNTED[16:56]):
        assert meaning(ping(other)) is None
        assert meaning(SIX / ICMPv6EchoReply(data=other)) is None


def test_only_neighbour_discovery_is_recognised() -> None:
    known = [
        ICMPv6ND_NS(tgt="fe80::2"),
        ICMPv6ND_NS(tgt="fe80::2") / ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:01"),
        ICMPv6ND_NA(tgt="fe80::2", R=1) / ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:01"),
        ICMPv6ND_RS() / ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:01"),
        ICMPv6ND_RA() / ICMPv6NDOptPrefixInfo(prefix="fd::") / ICMPv6NDOptSrcLLAddr(),
        ICMPv6MLReport(mladdr="ff02::fb"),
        ICMPv6MLReport2(records=[ICMPv6MLDMultAddrRec(dst="ff02::fb"), ICMPv6MLDMultAddrRec(dst="ff02::1")]),
    ]
    for packet in known:
        assert meaning(SIX / packet) is Meaning.NEIGHBOURS
        assert meaning(SIX / packet / ENGLISH[:200]) is None
    for kind in (*range(130, 138), 143):
        assert meaning(IPv6(src="fd::1", dst="fd::2", nh=58) / (bytes([kind, 0, 1, 2]) + ENGLISH[:1300])) is None
        assert meaning(IPv6(src="fd::1", dst="fd::2", nh=58) / (bytes([kind, 0, 1, 2]) + ENGLISH[:20])) is None


def test_only_arp_for_ipv4_is_recognised() -> None:
    for packet in (Ether() / ARP(), Ether() / ARP() / bytes(18), Ether() / Dot1Q(vlan=3) / ARP(op=2)):
        assert meaning(packet) is Meaning.ARP
        assert meaning(packet / b"x") is None
    assert meaning(Ether() / ARP(hwtype=6, hwlen=8)) is None


def test_only_icmp_errors_with_a_short_quote_are_recognised() -> None:
    for version, error, packet in (
        (4, BACK / ICMP(type=3, code=4), stream(noise(1400))[1]),
        (6, IPv6(src="fd::9", dst="fd::1") / ICMPv6PacketTooBig(mtu=1280), SIX / TCP() / noise(1400)),
    ):
        most = 1232 if version == 6 else 548
        assert meaning(error / bytes(packet)[:most]) is Meaning.ICMP_ERROR
        for other in (bytes(packet)[: most + 1], bytes(packet)[:15], b"", ENGLISH[:most]):
            assert meaning(error / other) is None
        error.dst = error.src
        assert meaning(error / bytes(packet)[:most]) is None  # not sent to the sender of the quote


def test_only_whole_ike_messages_are_recognised() -> None:
    for port, mark in ((500, b""), (4500, bytes(4))):
        head = FOUR / UDP(sport=port, dport=port)
        for message in (ike(noise(500)), ike(noise(80), exchange=37, first=46), ike(noise(80), version=0x10)):
            assert meaning(head / (mark + message)) is Meaning.IKE
            for at, value in ((0, bytes(8)), (17, b"\x30"), (18, b"\x08"), (19, b"\xff"), (24, b"\1")):
                wrong = message[:at] + value + message[at + len(value) :]
                assert meaning(head / (mark + wrong)) is (Meaning.IKE if wrong == message else None)
            assert meaning(head / (mark + message + b"x")) is None
        assert meaning(head / (mark + ENGLISH)) is None
        assert meaning(head / (mark or b"x")) is None
    assert meaning(FOUR / UDP(sport=4500, dport=4500) / b"\xff") is Meaning.IKE


def test_the_head_of_an_ike_message_ends_at_its_encrypted_part() -> None:
    assert ike_head(ike(bytes(500))) is None
    assert ike_head(ike(bytes(500), exchange=35, first=46)) == 28 + 4 + 8
    assert ike_head(ike(bytes(500), exchange=35, first=53)) == 28 + 8 + 8
    assert ike_head(ike(bytes(3), exchange=35, first=46)) == 31
    old = bytearray(ike(bytes(500), version=0x10))
    assert ike_head(bytes(old)) is None
    old[19] = 1
    assert ike_head(bytes(old)) == 28


def test_the_head_of_an_icmp_error_ends_at_the_quoted_content() -> None:
    head = bytes(8)
    for quoted, count in (
        (FOUR / TCP() / b"x", 40),
        (FOUR / TCP(options=[("NOP", None)] * 4) / b"x", 44),
        (IP(src=A, dst=B, options=[b"\x01"] * 4) / UDP() / b"x", 32),
        (IP(src=A, dst=B, proto=50) / noise(30), 36),
        (SIX / TCP() / b"x", 60),
        (SIX / UDP() / b"x", 48),
        (IP(src=A, dst=B, proto=6), 20),
    ):
        assert error_head(head + bytes(quoted)) == 8 + count


def check(tmp_path: Path, packets: list[Any], expect: str) -> Finding:
    wanted = canaries.DISK + canaries.MEMORY
    return check_capture(write(tmp_path / "x.pcap", packets), wanted, Expect(EXPECTED[expect]))


@pytest.mark.parametrize(
    ("expect", "packet"),
    [
        ("plugin", ping(ENGLISH[:1400])),
        ("plugin", SIX / ICMPv6EchoReply(data=ENGLISH[:1400])),
        ("esp", FOUR / UDP(sport=500, dport=500) / ENGLISH[:1400]),
        ("esp", FOUR / UDP(sport=4500, dport=4500) / (bytes(4) + ENGLISH[:1400])),
        ("esp", FOUR / ICMP(type=3, code=1) / ENGLISH[:1400]),
        ("esp", IPv6(src="fd::1", dst="fd::2", nh=58) / (b"\x87\0\1\2" + ENGLISH[:1400])),
        ("any", ping(ENGLISH[:56])),
    ],
    ids=["ping", "ping6", "500", "4500", "error", "neighbours", "small"],
)
def test_english_in_the_place_of_clear_messages_is_noticed(expect: str, packet: Any, tmp_path: Path) -> None:
    sealed = WORKING if expect == "plugin" else ESP
    finding = check(tmp_path, [*sealed, *[packet] * MANY], expect)
    assert sum(finding.strangers.values()) == MANY and finding.not_noise
    assert judged(finding, expect)[0] is Verdict.OPEN


@pytest.mark.parametrize(
    ("packet", "few"),
    [
        (FOUR / UDP(sport=500, dport=500) / ike(ENGLISH[:1400]), 20),
        (FOUR / UDP(sport=500, dport=500) / ike(ENGLISH[:1400], exchange=37, first=46), 0),
        (BACK / ICMP(type=3, code=1) / FOUR / TCP() / ENGLISH[:500], 8),
    ],
    ids=["key exchange", "encrypted", "quoted"],
)
def test_english_in_the_format_of_clear_messages_is_limited(packet: Any, few: int, tmp_path: Path) -> None:
    """A limited amount is accepted (but searched for canaries); in encrypted parts, none."""
    finding = check(tmp_path, [*ESP, *[packet] * few], "esp")
    assert judged(finding, "esp")[0] is Verdict.PROVED and not finding.strangers
    finding = check(tmp_path, [*ESP, *[packet] * MANY], "esp")
    assert finding.not_noise and judged(finding, "esp")[0] is Verdict.OPEN


def test_hours_of_clear_messages_are_accepted(tmp_path: Path) -> None:
    packets: list[Any] = [*ESP, FOUR / UDP(sport=500, dport=500) / ike(ENGLISH[:400])]
    for seed in range(1500):
        packets.append(FOUR / UDP(sport=500, dport=500) / ike(noise(76, seed), exchange=37, first=46))
        packets.append(SIX / ICMPv6ND_NS(tgt="fe80::2") / ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:01"))
        packets.append(BACK / ICMP(type=3, code=4) / FOUR / UDP(sport=4500, dport=4500) / noise(500, seed))
        packets.append(ping(struct.pack("<QQ", NOW[0] + seed, seed) + COUNTED[16:56]))
    finding = check(tmp_path, packets, "any")
    assert judged(finding, "any") == (Verdict.PROVED, []) and finding.sealed.keys() == {"esp", "ike", "icmp error"}


def test_bytes_after_the_end_of_packets_must_look_random(tmp_path: Path) -> None:
    packets = [Ether() / packet for packet in WORKING]
    behind = bytes(Ether() / FOUR / TCP(sport=4, dport=22, flags="S"))
    assert judged(check(tmp_path, packets + [Ether(behind + bytes(6))] * MANY, "plugin"), "plugin")[0] == 0
    finding = check(tmp_path, packets + [Ether(behind + ENGLISH[:1400])] * MANY, "plugin")
    assert finding.not_noise and judged(finding, "plugin")[0] is Verdict.OPEN


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and packet sockets need root")
@pytest.mark.skipif(not os.path.exists("/dev/net/tun"), reason="no /dev/net/tun")
@pytest.mark.skipif(not shutil.which("ping"), reason="no ping")
def test_real_ping_is_recognised(tmp_path: Path) -> None:
    with TwoHosts(Profile.parse(rtt="4ms", rate="200mbit"), "vf") as hosts:
        with recording(hosts, tmp_path / "x.pcap"):
            for size in ("0", "8", "15", "16", "56", "1200"):
                words = ["ping", "-n", "-q", "-c", "2", "-i", "0.05", "-s", size, hosts.b.address]
                assert hosts.a.popen(words, stdout=subprocess.DEVNULL).wait(30) == 0
            time.sleep(0.2)
    finding = check_capture(tmp_path / "x.pcap", canaries.DISK, Expect(EXPECTED["plugin"]))
    assert finding.kinds["icmp"][0] == 24 and not finding.strangers
