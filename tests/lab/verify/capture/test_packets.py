"""Packets are parsed and explained; encrypted ESP looks random, unencrypted ESP does not."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scapy", reason="scapy is not installed")
pytest.importorskip("numpy", reason="numpy is not installed")

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLDMultAddrRec,
    ICMPv6MLReport2,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    RouterAlert,
)
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.l2 import ARP, CookedLinux, CookedLinuxV2, Dot1Q, Ether

from lab.hosts.guest import canaries
from lab.verify.capture.packets import Parser
from lab.verify.capture.reading import Captured
from lab.verify.content.meaning import packet_filter, packet_meaning
from lab.verify.judge.check import Finding, check_capture
from lab.verify.judge.explain import EXPECTED, Expect
from lab.verify.judge.verdict import Verdict, judged
from tests.helpers.wire import PREAMBLE, A, B, ike, noise, stream, write

ESP_ONLY = Expect(EXPECTED["esp"])


def parsed(*packets: Any) -> list[tuple[str, tuple[int, int] | None, bytes]]:
    """Return (protocol, ports, payload) of each parsed packet."""
    parser = Parser()
    found = [
        each
        for packet in packets
        for each in parser.parse(Captured(1 if isinstance(packet, Ether) else 101, bytes(packet), len(packet)))
    ]
    return [(each.protocol, each.ports, each.payload) for each in [*found, *parser.take_waiting()]]


def test_tcp_is_parsed_within_any_headers() -> None:
    inner = TCP(sport=5, dport=6) / b"text"
    six = IPv6(src="fd::1", dst="fd::2")
    for packet in (
        IP() / inner,
        IP(options=[b"\x01"] * 4) / inner,
        six / inner,
        six / IPv6ExtHdrHopByHop() / inner,
        Ether() / Dot1Q(vlan=3) / IP() / inner,
        Ether() / Dot1Q(vlan=3) / Dot1Q(vlan=4) / six / inner,
    ):
        assert parsed(packet) == [("tcp", (5, 6), b"text")]


@pytest.mark.parametrize("kind", [CookedLinux, CookedLinuxV2])
def test_cooked_captures(kind: Any, tmp_path: Path) -> None:
    link = {CookedLinux: 113, CookedLinuxV2: 276}[kind]
    parser = Parser()
    packets = [kind(proto=0x0800) / IP() / UDP(sport=500, dport=500) / b"x", kind(proto=0x0806) / ARP()]
    found = [found for each in packets for found in parser.parse(Captured(link, bytes(each), len(each)))]
    assert [each.protocol for each in found] == ["udp", "arp"] and found[0].payload == b"x"


def test_fragments_get_the_ports_of_their_first_fragment() -> None:
    whole = UDP(sport=4500, dport=4500) / (b"\1\2\3\4" + noise(3000))
    for pieces in (
        fragment(IP(src=A, dst=B, id=7) / whole, 1000),
        [
            IPv6() / IPv6ExtHdrFragment(id=9, nh=17, m=1) / bytes(whole)[:1200],
            IPv6() / IPv6ExtHdrFragment(id=9, nh=17, offset=150) / bytes(whole)[1200:],
        ],
    ):
        found = parsed(*pieces)
        assert len(found) > 1 and {each[:2] for each in found} == {("udp", (4500, 4500))}
        assert b"".join(each[2] for each in found) == bytes(whole)[8:]
        found = parsed(*pieces[::-1])
        assert len(found) == len(pieces) and {each[:2] for each in found} == {("udp", (4500, 4500))}
        assert sorted(b"".join(each[2] for each in found)) == sorted(bytes(whole)[8:])


def test_fragments_without_a_first_fragment(tmp_path: Path) -> None:
    """A limited number of them waits for it; none is lost."""
    lonely = [IP(src=A, dst=B, id=number, frag=100, proto=17) / canaries.DISK[0] for number in range(1, 400)]
    found = parsed(*lonely)
    assert len(found) == 399 and {each[0] for each in found} == {"ip-fragment"}
    finding = check(tmp_path, [*secured("AES-GCM", None), *lonely])
    assert finding.strangers == {"ip-fragment": 399} and finding.hits
    assert finding.packets == sum(counts[0] for counts in finding.kinds.values())
    assert finding.wire_bytes == sum(counts[1] for counts in finding.kinds.values())


def check(tmp_path: Path, packets: list[Any], expect: Expect = ESP_ONLY) -> Finding:
    wanted = canaries.DISK + canaries.MEMORY
    return check_capture(write(tmp_path / "x.pcap", packets), wanted, expect)


def secured(crypt: str, auth: str | None, nat: bool = False) -> list[Any]:
    """Return the packets of a transfer with canaries, in ESP."""
    text = canaries.lines(canaries.DISK) + b"all work and no play\n" * 9000
    key = noise(20 if crypt == "AES-GCM" else 16, 3)
    sa = SecurityAssociation(
        ESP,
        spi=0xC0FFEE,
        crypt_algo=crypt,
        crypt_key=None if crypt == "NULL" else key,
        auth_algo=auth,
        auth_key=noise(20, 4) if auth else None,
        nat_t_header=UDP(sport=4500, dport=4500) if nat else None,
    )
    return [sa.encrypt(packet) for packet in stream(text)]


def ipsec_control() -> list[Any]:
    """Return other packets that are expected between hosts with IPsec."""
    return [
        IP(src=A, dst=B) / UDP(sport=500, dport=500) / ike(noise(300)),
        IP(src=A, dst=B) / UDP(sport=4500, dport=4500) / (bytes(4) + ike(noise(300), exchange=35, first=46)),
        IP(src=A, dst=B) / UDP(sport=4500, dport=4500) / b"\xff",
        IP(src="10.0.0.9", dst=A) / ICMP(type=3, code=4) / IP(src=A, dst=B, proto=50) / noise(500),
        IPv6(src="fe80::1", dst="ff02::1") / ICMPv6ND_NS(tgt="fe80::2"),
    ]


@pytest.mark.parametrize("nat", [False, True], ids=["esp", "esp in udp"])
@pytest.mark.parametrize(("crypt", "auth"), [("AES-CBC", "HMAC-SHA1-96"), ("AES-GCM", None)])
def test_encrypted_esp_proves_that_nothing_is_readable(
    crypt: str, auth: str | None, nat: bool, tmp_path: Path
) -> None:
    finding = check(tmp_path, secured(crypt, auth, nat) + ipsec_control())
    assert judged(finding, "esp") == (Verdict.PROVED, [])
    assert finding.judged > 40 and not finding.strangers


def test_unencrypted_esp_shows_all_canaries(tmp_path: Path) -> None:
    finding = check(tmp_path, secured("NULL", "HMAC-SHA1-96"))
    assert len({hit.canary for hit in finding.hits}) == len(canaries.DISK)
    assert finding.not_noise and not finding.strangers


@pytest.mark.parametrize(
    "leak",
    [
        IP(src=A, dst=B) / ICMP(type=8) / b"ping",
        IP(src=A, dst=B) / TCP(sport=4, dport=22, flags="S"),
        IP(src=A, dst=B) / UDP(sport=500, dport=501) / b"x",
        IPv6(src="fd::1", dst="fd::2") / ICMPv6EchoRequest(),
        IP(src=A, dst=B, proto=47) / b"gre",
    ],
    ids=["ping", "tcp", "udp", "ping6", "gre"],
)
def test_a_packet_outside_esp_is_unexplained(leak: Any, tmp_path: Path) -> None:
    finding = check(tmp_path, [*secured("AES-GCM", None), *ipsec_control(), leak])
    assert sum(finding.strangers.values()) == 1
    verdict, why = judged(finding, "esp")
    assert verdict is Verdict.OPEN and "unexplained" in why[0]


def test_other_kinds_may_be_expected_by_name(tmp_path: Path) -> None:
    packets = [*ipsec_control(), IP(src=A, dst=B) / UDP(sport=40000, dport=5353) / b"x"]
    assert not check(tmp_path, packets, Expect(EXPECTED["esp"], kinds=frozenset({"udp/5353"}))).strangers


def test_a_port_alone_explains_nothing(tmp_path: Path) -> None:
    plugin = Expect(EXPECTED["plugin"])
    for port in (22, 49300):
        assert check(tmp_path, stream(noise(9000), port=port), plugin).strangers == {f"tcp/{port}": 8}
        # a refused connection carries no data
        refused = [stream(b"", port=port)[0], IP(src=B, dst=A) / TCP(sport=port, dport=40000, flags="RA")]
        assert not check(tmp_path, refused, plugin).strangers
    assert check(tmp_path, stream(PREAMBLE, port=80), plugin).strangers == {"tcp/80": 2}
    assert not check(tmp_path, stream(PREAMBLE, port=49301), plugin).strangers


def test_bytes_after_the_end_of_a_packet_are_searched(tmp_path: Path) -> None:
    packet = bytes(Ether() / IP(src=A, dst=B) / ICMP())
    assert check(tmp_path, [Ether(packet + canaries.DISK[0])]).hits[0].flow.endswith("trailers")
    assert not check(tmp_path, [Ether(packet + bytes(20))]).hits


def test_options_of_headers_are_searched(tmp_path: Path) -> None:
    half = canaries.DISK[0][:36]
    tcp = TCP(sport=40000, dport=22, flags="S")
    six = IPv6(src="fd::1", dst="fd::2")
    for packet in (
        IP(src=A, dst=B, options=[IPOption(bytes([0x94, 38]) + half)]) / tcp,
        IP(src=A, dst=B) / TCP(sport=40000, dport=22, flags="S", options=[(254, half)]),
        six / IPv6ExtHdrHopByHop(options=[PadN(optdata=half)]) / tcp,
        six / IPv6ExtHdrDestOpt(options=[PadN(optdata=half)]) / IPv6ExtHdrFragment(nh=6) / tcp,
        IP(src=A, dst=B) / UDP(sport=500, dport=500) / ike(noise(300)),
    ):
        finding = check(tmp_path, [packet], Expect(EXPECTED["any"]))
        assert [hit.flow for hit in finding.hits] == ["options of headers"] * (UDP not in packet)
        assert "ipv6-options" in finding.strangers if IPv6 in packet else not finding.strangers


def test_ipv6_headers_other_than_a_router_alert_are_unexplained(tmp_path: Path) -> None:
    """Multicast listener reports need a router alert (RFC 3810)."""
    six = IPv6(src="fe80::1", dst="ff02::16")
    report = ICMPv6MLReport2(records=[ICMPv6MLDMultAddrRec(dst="ff02::fb")])
    assert not check(tmp_path, [six / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / report]).strangers
    for packet in (
        six / IPv6ExtHdrHopByHop(options=[RouterAlert(value=7)]) / report,
        six / IPv6ExtHdrHopByHop(options=[RouterAlert(), PadN(optdata=bytes(8))]) / report,
        six / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / UDP(sport=500, dport=500) / ike(noise(300)),
        six / IPv6ExtHdrDestOpt() / report,
        six / IPv6ExtHdrRouting(addresses=["fd::9"]) / report,
    ):
        finding = check(tmp_path, [packet])
        assert finding.strangers == {"ipv6-options": 1}
        assert not check(tmp_path, [packet], Expect(ESP_ONLY.meanings, kinds=frozenset({"ipv6-options"}))).strangers


def test_malformed_packets_are_parsed_without_an_error(tmp_path: Path) -> None:
    more = (Ether() / ARP(), IP() / ICMP(), IPv6() / ICMPv6EchoRequest(data=b"x" * 30), *ipsec_control())
    whole = [bytes(each) for each in (*more, *secured("AES-GCM", None)[:2], *stream(b"x"))]
    chance = random.Random(1)
    parser = Parser()
    for _ in range(3000):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        del data[chance.randrange(len(data) + 1) :]
        for found in parser.parse(Captured(chance.choice((1, 101, 113, 276, 999)), bytes(data), len(data))):
            assert found.protocol and isinstance(found.payload, bytes)
            taken = packet_filter(packet_meaning(found))
            assert len(taken.sealed(found.payload)) + taken.clear == len(found.payload)
