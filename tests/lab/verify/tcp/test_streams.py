"""What a capture lacks of a TCP connection, and what is in it beside the stream, is noticed."""

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
from tests.helpers.wire import A, B, noise, stream, write

PREAMBLE = b"\x89XPS\r\n\x1a\n" + noise(56)
PLUGIN = Expect(EXPECTED["plugin"])
SECRET = canaries.lines(canaries.DISK + canaries.MEMORY) * 20
START = 1000


def frame(length: int, seed: int = 2) -> bytes:
    return struct.pack(">L", length) + noise(length, seed)


DATA = PREAMBLE + frame(40_000)
END = START + len(DATA)


def forth(number: int, data: bytes = b"", flags: str = "A", ack: int = 0, **more: Any) -> Any:
    """A segment of the connection that `stream` makes, whose first byte is number 1000."""
    ends = {"sport": 40000, "dport": 49300, **more}
    return IP(src=A, dst=B) / TCP(**ends, seq=number % 2**32, ack=ack % 2**32, flags=flags) / data


def back(number: int, data: bytes = b"", flags: str = "A", ack: int = 0) -> Any:
    tcp = TCP(sport=49300, dport=40000, seq=number % 2**32, ack=ack % 2**32, flags=flags)
    return IP(src=B, dst=A) / tcp / data


def sealed(data: bytes = DATA) -> list[Any]:
    return stream(data, port=49300)


def pieces(number: int, data: bytes = SECRET) -> list[Any]:
    return [forth(number + at, data[at : at + 1000]) for at in range(0, len(data), 1000)]


def look(tmp_path: Path, packets: list[Any], *also: str) -> Finding:
    expect = Expect(PLUGIN.meanings, kinds=frozenset(also))
    return check_capture(write(tmp_path / "x.pcap", packets), canaries.DISK + canaries.MEMORY, expect)


def verdict(tmp_path: Path, packets: list[Any], *also: str) -> tuple[Verdict, list[str]]:
    return judged(look(tmp_path, packets, *also), "plugin")


# What is missing at the end.


def test_the_end_of_a_stream_is_missing(tmp_path: Path) -> None:
    for last in (forth(END, flags="FA"), forth(END), back(0, ack=END)):
        finding = look(tmp_path, [*sealed()[:-5], last])
        assert finding.missing_bytes == len(DATA) - 1400 * 24
        assert judged(finding, "plugin") == (
            Verdict.UNPROVEN,
            [f"{finding.missing_bytes} bytes of TCP streams are missing"],
        )


def test_all_of_a_connection_but_its_ends_is_missing(tmp_path: Path) -> None:
    other = [forth(999, flags="S", sport=40001), forth(1000 + 50_000_000, flags="FA", sport=40001)]
    assert look(tmp_path, sealed() + other).missing_bytes == 50_000_000


def test_a_direction_is_missing(tmp_path: Path) -> None:
    acks = [forth(END, ack=number) for number in (70_000, 75_000, 90_000)]
    finding = look(tmp_path, sealed() + acks)
    assert finding.missing_bytes == 90_000  # the segments before them acknowledge 0
    syn, *rest = sealed()
    for packet in rest:
        packet[TCP].ack = 70_000
    finding = look(tmp_path, [syn, *rest, *acks])
    assert finding.missing_bytes == 20_000 and judged(finding, "plugin")[0] is Verdict.UNPROVEN


def test_more_than_numbers_can_count(tmp_path: Path) -> None:
    acks = [back(0, ack=END + step * (1 << 30)) for step in range(8)]
    assert look(tmp_path, sealed() + acks).missing_bytes == 7 << 30


def test_a_capture_that_holds_everything(tmp_path: Path) -> None:
    """Both directions, probes that keep it alive, and all the ways in which it ends."""
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
        [*fins, *whole[3:6], *whole[-8:]],  # sent again when all is over
        fins[::-1],
        [forth(0, flags="R"), back(7, flags="RA", ack=77)],
        [fins[0], back(last, flags="RA", ack=END + 1), forth(END + 1, flags="R")],
    ):
        assert verdict(tmp_path, whole + end) == (Verdict.PROVED, [])


def test_what_was_cut_off_in_flight_is_no_hole(tmp_path: Path) -> None:
    """Segments that were lost on their way to where the capture was taken, and a reset before they came again."""
    flight = [back(499, flags="SA", ack=START), *sealed(PREAMBLE + frame(40_000)), back(500, ack=START + 1400 * 10)]
    del flight[20]
    assert look(tmp_path, flight).missing_bytes == 1400
    assert look(tmp_path, [*flight, back(500, flags="R")]).missing_bytes == 0
    assert look(tmp_path, [*flight, back(500, ack=END), back(500, flags="R")]).missing_bytes == 1400
    alone = [packet for packet in flight if packet[IP].src == A]
    assert look(tmp_path, [*alone, forth(END, flags="R")]).missing_bytes == 1400  # nobody says what arrived


def test_a_capture_that_begins_in_the_middle(tmp_path: Path) -> None:
    """What was acknowledged before the first segment is not missed; what was sent meanwhile is."""
    data = noise(90_000)
    middle = [forth(5000 + at, data[at : at + 1000], ack=700, dport=7000) for at in range(0, 90_000, 1000)]
    answers = [IP(src=B, dst=A) / TCP(sport=7000, dport=40000, seq=700, ack=5000 + at, flags="A") for at in (0, 9)]
    probe = forth(4999, ack=700, dport=7000)
    for first in ([], answers, [probe], [*answers, probe]):
        assert verdict(tmp_path, [*first, *middle, *sealed()], "tcp/7000")[0] is Verdict.PROVED
    answers[0][TCP].ack = 3000
    assert look(tmp_path, [*answers, *middle]).missing_bytes == 2000


# What is in the capture, and not in a stream.


def test_a_hole_of_more_than_2_gib(tmp_path: Path) -> None:
    finding = look(tmp_path, sealed() + pieces(END + 2**31 + 5000))
    assert finding.unplaced_bytes == len(SECRET) and {hit.canary for hit in finding.hits} == set(range(8))
    far = pieces(END + 2**31 + 5000, noise(9000, 9))
    assert verdict(tmp_path, sealed() + far) == (
        Verdict.UNPROVEN,
        ["9000 bytes fit at no position of their TCP stream"],
    )


def test_before_the_first_byte(tmp_path: Path) -> None:
    for what, worth in ((SECRET, Verdict.OPEN), (noise(9000, 9), Verdict.UNPROVEN)):
        stray = [*sealed(), forth(END + 2**30, flags="S"), *pieces(END, what)]
        finding = look(tmp_path, stray)
        assert finding.unplaced_bytes == len(what) and judged(finding, "plugin")[0] is worth
        late = [*pieces(90_000, noise(20_000, 7)), *pieces(80_000 - len(what), what)]
        for packet in late:
            packet[TCP].dport = 7000
        finding = look(tmp_path, late + sealed(), "tcp/7000")
        assert finding.unplaced_bytes == len(what) and judged(finding, "plugin")[0] is worth


def test_sent_again_with_other_content(tmp_path: Path) -> None:
    other = noise(3000, 9)
    finding = look(tmp_path, sealed() + pieces(START + 500, other))
    assert finding.repeated_bytes == 3000 and finding.altered_bytes > 2900
    assert judged(finding, "plugin") == (
        Verdict.OPEN,
        [f"{finding.altered_bytes} bytes of TCP streams were retransmitted with other content"],
    )
    finding = look(tmp_path, sealed() + pieces(START + 500))
    assert {hit.canary for hit in finding.hits} == set(range(8))


def test_sent_again_when_it_cannot_be_compared_any_more(tmp_path: Path) -> None:
    long = PREAMBLE + frame(1_000_000) + frame(1_000_000, 3) + frame(1_000_000, 4) + frame(1_000_000, 5)
    packets = stream(long + frame(1_000_000, 6), 60_000, port=49300)
    finding = look(tmp_path, packets + pieces(START + 500))
    assert {hit.canary for hit in finding.hits} == set(range(8)) and not finding.altered_bytes
    assert verdict(tmp_path, packets + packets[:3]) == (Verdict.PROVED, [])


def test_a_reset_may_carry_words(tmp_path: Path) -> None:
    assert look(tmp_path, [*sealed(), forth(END, SECRET[:1000], flags="R")]).hits


# Whose packets they are.


@pytest.mark.parametrize("ended", [[], [forth(START + 180, flags="FA"), back(500, flags="FA", ack=START + 181)]])
def test_the_next_connection_between_the_same_ports(ended: list[Any], tmp_path: Path) -> None:
    plain = [*stream(b"hello this is ftp " * 10, port=49300), *stream(noise(9), port=49300, back=True), *ended]
    sealed_again = stream(DATA, port=49300, start=900_000)
    assert look(tmp_path, plain + sealed_again).strangers == {"tcp/49300": len(plain)}
    assert look(tmp_path, sealed_again + plain).strangers == {"tcp/49300": len(plain)}
    refused = [forth(776, flags="S"), back(0, flags="RA", ack=777)]
    assert verdict(tmp_path, sealed_again + refused) == (Verdict.PROVED, [])


# Holes.


def test_a_hole_within_a_frame_hides_no_frame(tmp_path: Path) -> None:
    packets = sealed(PREAMBLE + frame(40_000) + frame(40_000, 3) + frame(40_000, 4))
    del packets[5]
    finding = look(tmp_path, packets)
    assert finding.missing_bytes == 1400 and finding.clear_bytes == 64 + 3 * 4
    assert judged(finding, "plugin")[0] is Verdict.UNPROVEN


def test_a_hole_in_which_frames_begin_is_not_said_to_be_open(tmp_path: Path) -> None:
    opening = b"SSH-2.0-x\r\n" + struct.pack(">LBB", 6, 4, 21) + bytes(4)
    gcm = b"".join(struct.pack(">L", 32) + noise(48, n) for n in range(900))
    small = b"".join(frame(25, n) for n in range(1000))
    for packets in (
        stream(opening + gcm, port=22),
        sealed(PREAMBLE + small),
        sealed() + stream(small, port=49300, back=True),
    ):
        gap = len(packets) - 9
        finding = look(tmp_path, packets[:gap] + packets[gap + 1 :])
        assert finding.adrift and judged(finding, "any")[0] is Verdict.UNPROVEN
        assert not finding.unframed and not finding.not_noise
        finding = look(tmp_path, packets)
        assert judged(finding, "any") == (Verdict.PROVED, [])


def test_a_stream_whose_first_bytes_are_missing_cannot_be_told(tmp_path: Path) -> None:
    syn, _, *rest = sealed(PREAMBLE + frame(90_000))
    answer = [back(499, flags="SA", ack=START), *stream(frame(40_000, 3), port=49300, back=True, start=500)[1:]]
    finding = look(tmp_path, [syn, *rest, *answer])
    assert not finding.strangers and finding.untold == len(rest) + 1 + len(answer)
    assert judged(finding, "any")[0] is Verdict.UNPROVEN
    for packet in (syn, *rest):
        packet[TCP].dport = 80  # no port at which there is anything
    assert look(tmp_path, [syn, *rest]).strangers == {"tcp/80": len(rest) + 1}


def test_an_unknown_stream_is_not_excused_by_a_missing_answer(tmp_path: Path) -> None:
    packets = stream(noise(9000), port=49300)
    for packet in packets:
        packet[TCP].ack = 70_000
    finding = look(tmp_path, [*packets, forth(START + 9000, ack=90_000)])
    assert finding.missing_bytes == 20_000 and finding.strangers == {"tcp/49300": len(packets) + 1}
