"""Missing parts of TCP connections, and bytes that are not part of a stream, are noticed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scapy", reason="scapy is not installed")
pytest.importorskip("numpy", reason="numpy is not installed")

from scapy.layers.inet import IP, TCP

from lab.hosts.guest import canaries
from lab.verify.judge.check import Finding, check_capture
from lab.verify.judge.explain import EXPECTED, Expect
from lab.verify.judge.verdict import Verdict, judged
from tests.helpers.wire import PREAMBLE, A, B, frame, noise, stream, write

PLUGIN = Expect(EXPECTED["plugin"])
SECRET = canaries.lines(canaries.DISK + canaries.MEMORY) * 20
START = 1000
DATA = PREAMBLE + frame(40_000)
END = START + len(DATA)


def forth(number: int, data: bytes = b"", flags: str = "A", ack: int = 0, **more: Any) -> Any:
    """Return a client's segment of the connection that `stream` makes, whose first byte has number 1000."""
    ends = {"sport": 40000, "dport": 49300, **more}
    return IP(src=A, dst=B) / TCP(**ends, seq=number % 2**32, ack=ack % 2**32, flags=flags) / data


def back(number: int, data: bytes = b"", flags: str = "A", ack: int = 0) -> Any:
    tcp = TCP(sport=49300, dport=40000, seq=number % 2**32, ack=ack % 2**32, flags=flags)
    return IP(src=B, dst=A) / tcp / data


def sealed(data: bytes = DATA) -> list[Any]:
    return stream(data, port=49300)


def pieces(number: int, data: bytes = SECRET) -> list[Any]:
    return [forth(number + at, data[at : at + 1000]) for at in range(0, len(data), 1000)]


def check(tmp_path: Path, packets: list[Any], *also: str) -> Finding:
    expect = Expect(PLUGIN.meanings, kinds=frozenset(also))
    return check_capture(write(tmp_path / "x.pcap", packets), canaries.DISK + canaries.MEMORY, expect)


def verdict(tmp_path: Path, packets: list[Any], *also: str) -> tuple[Verdict, list[str]]:
    return judged(check(tmp_path, packets, *also), "plugin")


# Missing bytes.


def test_a_missing_end_of_a_stream(tmp_path: Path) -> None:
    for last in (forth(END, flags="FA"), forth(END), back(0, ack=END)):
        finding = check(tmp_path, [*sealed()[:-5], last])
        assert finding.missing_bytes == len(DATA) - 1400 * 24
        assert judged(finding, "plugin") == (
            Verdict.UNPROVEN,
            [f"{finding.missing_bytes} bytes of TCP streams are missing"],
        )


def test_a_connection_of_which_only_the_ends_were_captured(tmp_path: Path) -> None:
    other = [forth(999, flags="S", sport=40001), forth(1000 + 50_000_000, flags="FA", sport=40001)]
    assert check(tmp_path, sealed() + other).missing_bytes == 50_000_000


def test_a_missing_direction(tmp_path: Path) -> None:
    acks = [forth(END, ack=number) for number in (70_000, 75_000, 90_000)]
    finding = check(tmp_path, sealed() + acks)
    assert finding.missing_bytes == 90_000  # the segments before them acknowledge 0
    syn, *rest = sealed()
    for packet in rest:
        packet[TCP].ack = 70_000
    finding = check(tmp_path, [syn, *rest, *acks])
    assert finding.missing_bytes == 20_000 and judged(finding, "plugin")[0] is Verdict.UNPROVEN


def test_more_missing_bytes_than_sequence_numbers(tmp_path: Path) -> None:
    acks = [back(0, ack=END + step * (1 << 30)) for step in range(8)]
    assert check(tmp_path, sealed() + acks).missing_bytes == 7 << 30


def test_complete_connections_lack_nothing(tmp_path: Path) -> None:
    """With both directions, keep-alive probes, and every kind of end."""
    answer = frame(20_000, 3)
    whole = [forth(999, flags="S"), back(499, flags="SA", ack=1000), *sealed()[1:]]
    whole += [back(500 + at, answer[at : at + 1400], ack=END) for at in range(0, len(answer), 1400)]
    last = 500 + len(answer)
    whole += [forth(END, ack=last), forth(END - 1), back(last, ack=END), back(last - 1, b"\0", ack=END)]
    fins = [forth(END, flags="FA", ack=last), back(last, flags="FA", ack=END + 1), forth(END + 1, ack=last + 1)]
    for packet in whole:
        if packet[IP].src == A and "S" not in packet[TCP].flags and not packet[TCP].ack:
            packet[TCP].ack = 500
    for end in (
        [],
        fins,
        [*fins, *fins],
        [*fins, *whole[3:6], *whole[-8:]],  # retransmitted after the end
        fins[::-1],
        [forth(0, flags="R"), back(7, flags="RA", ack=77)],
        [fins[0], back(last, flags="RA", ack=END + 1), forth(END + 1, flags="R")],
    ):
        assert verdict(tmp_path, whole + end) == (Verdict.PROVED, [])


def test_segments_lost_before_a_reset_are_no_hole(tmp_path: Path) -> None:
    """Segments were lost on their way to the place of the capture; then the connection was reset."""
    flight = [back(499, flags="SA", ack=START), *sealed(PREAMBLE + frame(40_000)), back(500, ack=START + 1400 * 10)]
    del flight[20]
    assert check(tmp_path, flight).missing_bytes == 1400
    assert check(tmp_path, [*flight, back(500, flags="R")]).missing_bytes == 0
    assert check(tmp_path, [*flight, back(500, ack=END), back(500, flags="R")]).missing_bytes == 1400
    alone = [packet for packet in flight if packet[IP].src == A]
    assert check(tmp_path, [*alone, forth(END, flags="R")]).missing_bytes == 1400  # without acknowledgments


def test_a_capture_that_begins_within_a_connection(tmp_path: Path) -> None:
    """Bytes acknowledged before the first segment do not count as missing; bytes after these do."""
    data = noise(90_000)
    middle = [forth(5000 + at, data[at : at + 1000], ack=700, dport=7000) for at in range(0, 90_000, 1000)]
    answers = [IP(src=B, dst=A) / TCP(sport=7000, dport=40000, seq=700, ack=5000 + at, flags="A") for at in (0, 9)]
    probe = forth(4999, ack=700, dport=7000)
    for first in ([], answers, [probe], [*answers, probe]):
        assert verdict(tmp_path, [*first, *middle, *sealed()], "tcp/7000")[0] is Verdict.PROVED
    answers[0][TCP].ack = 3000
    assert check(tmp_path, [*answers, *middle]).missing_bytes == 2000


# Bytes that are not part of a stream.


def test_segments_more_than_2_gib_ahead_fit_nowhere(tmp_path: Path) -> None:
    finding = check(tmp_path, sealed() + pieces(END + 2**31 + 5000))
    assert finding.unplaced_bytes == len(SECRET) and {hit.canary for hit in finding.hits} == set(range(8))
    far = pieces(END + 2**31 + 5000, noise(9000, 9))
    assert verdict(tmp_path, sealed() + far) == (
        Verdict.UNPROVEN,
        ["9000 bytes fit at no position of their TCP stream"],
    )


def test_segments_before_the_first_byte_fit_nowhere(tmp_path: Path) -> None:
    for what, worth in ((SECRET, Verdict.OPEN), (noise(9000, 9), Verdict.UNPROVEN)):
        stray = [*sealed(), forth(END + 2**30, flags="S"), *pieces(END, what)]
        finding = check(tmp_path, stray)
        assert finding.unplaced_bytes == len(what) and judged(finding, "plugin")[0] is worth
        late = [*pieces(90_000, noise(20_000, 7)), *pieces(80_000 - len(what), what)]
        for packet in late:
            packet[TCP].dport = 7000
        finding = check(tmp_path, late + sealed(), "tcp/7000")
        assert finding.unplaced_bytes == len(what) and judged(finding, "plugin")[0] is worth


def test_retransmissions_with_other_content(tmp_path: Path) -> None:
    other = noise(3000, 9)
    finding = check(tmp_path, sealed() + pieces(START + 500, other))
    assert finding.repeated_bytes == 3000 and finding.altered_bytes > 2900
    assert judged(finding, "plugin") == (
        Verdict.OPEN,
        [f"{finding.altered_bytes} bytes of TCP streams were retransmitted with other content"],
    )
    finding = check(tmp_path, sealed() + pieces(START + 500))
    assert {hit.canary for hit in finding.hits} == set(range(8))


def test_retransmissions_of_bytes_no_longer_kept_are_searched(tmp_path: Path) -> None:
    long = PREAMBLE + frame(1_000_000) + frame(1_000_000, 3) + frame(1_000_000, 4) + frame(1_000_000, 5)
    packets = stream(long + frame(1_000_000, 6), 60_000, port=49300)
    finding = check(tmp_path, packets + pieces(START + 500))
    assert {hit.canary for hit in finding.hits} == set(range(8)) and not finding.altered_bytes
    assert verdict(tmp_path, packets + packets[:3]) == (Verdict.PROVED, [])


def test_the_data_of_a_reset_is_searched(tmp_path: Path) -> None:
    assert check(tmp_path, [*sealed(), forth(END, SECRET[:1000], flags="R")]).hits


# Connections between the same ports.


@pytest.mark.parametrize("ended", [[], [forth(START + 180, flags="FA"), back(500, flags="FA", ack=START + 181)]])
def test_a_new_connection_between_the_same_ports_is_checked_by_itself(ended: list[Any], tmp_path: Path) -> None:
    plain = [*stream(b"hello this is ftp " * 10, port=49300), *stream(noise(9), port=49300, back=True), *ended]
    sealed_again = stream(DATA, port=49300, start=900_000)
    assert check(tmp_path, plain + sealed_again).strangers == {"tcp/49300": len(plain)}
    assert check(tmp_path, sealed_again + plain).strangers == {"tcp/49300": len(plain)}
    refused = [forth(776, flags="S"), back(0, flags="RA", ack=777)]
    assert verdict(tmp_path, sealed_again + refused) == (Verdict.PROVED, [])


# Holes.


def test_framing_continues_after_a_hole_within_a_frame(tmp_path: Path) -> None:
    packets = sealed(PREAMBLE + frame(40_000) + frame(40_000, 3) + frame(40_000, 4))
    del packets[5]
    finding = check(tmp_path, packets)
    assert finding.missing_bytes == 1400 and finding.clear_bytes == 64 + 3 * 4
    assert judged(finding, "plugin")[0] is Verdict.UNPROVEN


def test_a_hole_in_which_frames_begin_leaves_the_verdict_unproven(tmp_path: Path) -> None:
    opening = b"SSH-2.0-x\r\n" + struct.pack(">LBB", 6, 4, 21) + bytes(4)
    gcm = b"".join(struct.pack(">L", 32) + noise(48, n) for n in range(900))
    small = b"".join(frame(25, n) for n in range(1000))
    for packets in (
        stream(opening + gcm, port=22),
        sealed(PREAMBLE + small),
        sealed() + stream(small, port=49300, back=True),
    ):
        gap = len(packets) - 9
        finding = check(tmp_path, packets[:gap] + packets[gap + 1 :])
        assert finding.adrift and judged(finding, "any")[0] is Verdict.UNPROVEN
        assert not finding.unframed and not finding.not_noise
        finding = check(tmp_path, packets)
        assert judged(finding, "any") == (Verdict.PROVED, [])


def test_a_stream_whose_first_bytes_are_missing_is_not_recognised(tmp_path: Path) -> None:
    syn, _, *rest = sealed(PREAMBLE + frame(90_000))
    answer = [back(499, flags="SA", ack=START), *stream(frame(40_000, 3), port=49300, back=True, start=500)[1:]]
    finding = check(tmp_path, [syn, *rest, *answer])
    assert not finding.strangers and finding.untold == len(rest) + 1 + len(answer)
    assert judged(finding, "any")[0] is Verdict.UNPROVEN
    for packet in (syn, *rest):
        packet[TCP].dport = 80  # not a port of ssh or the plugin
    assert check(tmp_path, [syn, *rest]).strangers == {"tcp/80": len(rest) + 1}


def test_an_unrecognised_stream_stays_unexplained_if_the_answer_is_missing(tmp_path: Path) -> None:
    packets = stream(noise(9000), port=49300)
    for packet in packets:
        packet[TCP].ack = 70_000
    finding = check(tmp_path, [*packets, forth(START + 9000, ack=90_000)])
    assert finding.missing_bytes == 20_000 and finding.strangers == {"tcp/49300": len(packets) + 1}
