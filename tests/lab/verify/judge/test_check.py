"""check_capture on generated captures: order, holes, kinds of packets, noise."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scapy", reason="scapy is not installed")
pytest.importorskip("numpy", reason="numpy is not installed")

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether

from lab.verify.content.canary import make_canaries
from lab.verify.judge.check import Finding, check_capture
from lab.verify.judge.explain import EXPECTED, Expect
from tests.helpers.wire import PREAMBLE, A, B, frame, noise, stream, write

CANARIES = make_canaries(2, "test")
EXPECT = Expect(EXPECTED["plugin"])
TEXT = b"all work and no play makes jack a dull boy\n"


def frames(*lengths: int) -> bytes:
    return b"".join(frame(length, n) for n, length in enumerate(lengths))


def check(tmp_path: Path, packets: list[Any], expect: Expect | None = None) -> Finding:
    return check_capture(write(tmp_path / "test.pcap", packets), CANARIES, expect)


def only(*kinds: str) -> Expect:
    return Expect(frozenset(), kinds=frozenset(kinds))


def test_noise_is_secret_and_complete(tmp_path: Path) -> None:
    finding = check(tmp_path, stream(noise(300_000)), only("tcp/7000"))
    assert finding.secret and finding.complete
    assert finding.payload_bytes == 300_000 and finding.unjudged_bytes == 300_000 % 4096
    assert list(finding.kinds) == ["tcp/7000"] and finding.kinds["tcp/7000"][0] == finding.packets


@pytest.mark.parametrize("start", [1000, 2**32 - 5000])
def test_a_canary_across_packets_out_of_order_and_repeated_is_found(tmp_path: Path, start: int) -> None:
    packets = stream(noise(9_000) + CANARIES[1] + noise(9_000, 2), size=20, start=start)
    head, rest = packets[:1], packets[1:]
    random.Random(3).shuffle(rest)
    finding = check(tmp_path, head + rest + rest[::7])
    assert [(hit.canary, hit.spelling) for hit in finding.hits] == [(1, "raw")]
    assert finding.missing_bytes == 0 and finding.payload_bytes == 18_048
    assert finding.repeated_bytes == sum(len(packet[TCP].payload) for packet in rest[::7])
    assert not finding.secret


def test_a_hole_is_counted_and_the_bytes_after_it_are_searched(tmp_path: Path) -> None:
    packets = stream(noise(10_000) + CANARIES[0])
    del packets[3]
    finding = check(tmp_path, packets)
    assert finding.missing_bytes == 1400
    assert not finding.complete and finding.spellings == {"raw"}


def test_compressed_and_plain_text_are_not_noise(tmp_path: Path) -> None:
    words = b"".join(b"%d %s" % (n * n, TEXT) for n in range(60_000))
    for data in (TEXT * 4000, zlib.compress(words)):
        finding = check(tmp_path, stream(data))
        assert finding.not_noise > 0 and finding.suspects
        assert not finding.secret


def test_the_key_exchange_of_ssh_may_be_clear(tmp_path: Path) -> None:
    opening = b"SSH-2.0-OpenSSH_9.2\r\n" + ssh(20, TEXT * 30) + ssh(31, TEXT * 2) + ssh(21)
    for size in (5, 1400):
        finding = check(tmp_path, stream(opening + noise(20_000), size, port=22), EXPECT)
        assert finding.secret and finding.complete and finding.clear_bytes == len(opening)
    assert not check(tmp_path, stream(opening + TEXT * 300 + noise(20_000), port=22)).secret
    assert not check(tmp_path, stream(b"FTP " + (TEXT * 400) + noise(200_000))).secret


@pytest.mark.parametrize(
    "opening",
    [
        b"SSH-2.0-" + TEXT.replace(b"\n", b" ") * 16000,
        b"SSH-2.0-x\r\n" + TEXT * 16000,
        b"SSH-2.0-x\r\n" + b"".join([struct.pack(">LBB", 4302, 4, 20) + TEXT * 100] * 9),
        b"SSH-2.0-x\r\n" + struct.pack(">LBB", 200_000, 4, 20) + TEXT * 4600,
        b"SSH-2.0-x\r\n" + struct.pack(">LBB", 4302, 4, 50) + TEXT * 100,
    ],
    ids=["banner", "no exchange", "many packets", "a long packet", "an unknown packet"],
)
def test_the_clear_part_of_ssh_is_limited(tmp_path: Path, opening: bytes) -> None:
    for packets in (stream(opening, port=22), stream(opening + noise(200_000), port=22)):
        finding = check(tmp_path, packets, EXPECT)
        assert len(finding.unframed) == 1 and finding.clear_bytes <= 1 << 15
        assert not finding.secret


def ssh(kind: int, body: bytes = b"") -> bytes:
    """Return an unencrypted packet of ssh (RFC 4253, section 6)."""
    return struct.pack(">LBB", len(body) + 6, 4, kind) + body + bytes(4)


def test_ssh_with_gcm_has_clear_lengths(tmp_path: Path) -> None:
    opening = b"SSH-2.0-x\r\n" + ssh(20) + ssh(21)
    packets = b"".join(struct.pack(">L", 32) + noise(48, n) for n in range(2000))
    finding = check(tmp_path, stream(opening + packets, port=22), EXPECT)
    assert finding.secret and finding.complete and finding.clear_bytes == len(opening) + 8000
    lost = opening + packets[:5200] + struct.pack(">L", 33) + noise(9000)
    assert check(tmp_path, stream(lost, port=22)).unframed


def test_the_preamble_and_lengths_of_a_sealed_stream_may_be_clear(tmp_path: Path) -> None:
    packets = stream(PREAMBLE + frames(25, 1_000_000, 30_000)) + stream(frames(*[25] * 8000), back=True)
    finding = check(tmp_path, packets, Expect(EXPECTED["plugin"], range(7000, 7001)))
    assert finding.secret and finding.complete
    assert finding.clear_bytes == 64 + 4 * 3 + 4 * 8000
    assert finding.unjudged_bytes == (1_030_025 % 4096 + 200_000 % 4096) % 4096
    assert finding.payload_bytes == finding.clear_bytes + 1_030_025 + 200_000


@pytest.mark.parametrize("bad", [0, 16, 1 << 21, 0x68656C6C])
def test_invalid_frame_lengths_are_reported(tmp_path: Path, bad: int) -> None:
    finding = check(tmp_path, stream(PREAMBLE + frames(100) + struct.pack(">L", bad) + TEXT * 200))
    assert len(finding.unframed) == 1
    assert not finding.secret and finding.not_noise


def test_frame_lengths_outside_a_sealed_stream_are_not_noise(tmp_path: Path) -> None:
    assert not check(tmp_path, stream(frames(*[25] * 3000))).secret


def test_every_packet_is_counted_and_unexplained_ones_are_named(tmp_path: Path) -> None:
    packets = [
        Ether() / ARP(),
        Ether() / IP(src=A, dst=B) / ICMP(),
        Ether() / IP(src=A, dst=B) / UDP(sport=4000, dport=53) / (b"xx" + CANARIES[0]),
        Ether() / IPv6(src="fd::1", dst="fd::2") / TCP(sport=5, dport=7000),
        Ether() / IP(src=A, dst=B, proto=50) / noise(100),
        Ether(type=0x1234) / b"what is this",
        *(Ether() / packet for packet in stream(noise(100))),
    ]
    finding = check(tmp_path, packets, only("tcp/7000", "icmp"))
    assert sum(counts[0] for counts in finding.kinds.values()) == finding.packets == len(packets)
    assert {"arp", "icmp", "udp/53", "tcp/7000", "ether"} <= set(finding.kinds)
    assert finding.strangers.keys() == finding.kinds.keys() - {"tcp/7000", "icmp"}
    assert [hit.flow for hit in finding.hits] == ["10.0.0.1:4000 > 10.0.0.2:53 udp"]
