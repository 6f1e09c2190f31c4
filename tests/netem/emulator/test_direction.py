"""The fate of packets in one direction, and the cutting of GSO packets, against packets built by hand."""

from __future__ import annotations

import struct

import pytest

from netem import seeded_random
from netem.emulator.direction import Direction
from netem.emulator.packets import VNET, cut, measure, segment_bytes
from netem.emulator.stats import Lateness
from netem.profile import Profile

MS = 1_000_000
SIZE = 100  # bytes of data a segment
FIN, PSH, ACK, CWR = 0x01, 0x08, 0x10, 0x80


def ones_sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def frame(data: bytes, *, six: bool, gso: bool, sequence: int, flags: int, identifier: int = 0x1234) -> bytes:
    """Build what the kernel passes to the emulator: partial checksum in TCP, and 12 bytes of TCP options."""
    tcp_length = 32 + len(data)
    ip = 40 if six else 20
    if six:
        addresses = bytes(range(16)) + bytes(range(16, 32))
        head = struct.pack(">IHBB", 0x60012345, tcp_length, 6, 64) + addresses
        pseudo = addresses + struct.pack(">II", tcp_length, 6)
    else:
        addresses = bytes([10, 77, 0, 1, 10, 77, 0, 2])
        fields = (0x45, 0, 20 + tcp_length, identifier, 0x4000, 64, 6)
        bare = struct.pack(">BBHHHBBH", *fields, 0) + addresses
        head = struct.pack(">BBHHHBBH", *fields, ones_sum(bare) ^ 0xFFFF) + addresses
        pseudo = addresses + struct.pack(">HH", 6, tcp_length)
    tcp = struct.pack(">HHIIBBHHH", 5001, 5002, sequence % 2**32, 7, 0x80, flags, 512, ones_sum(pseudo), 0) + bytes(
        range(12)
    )
    kind = (4 if six else 1) if gso else 0
    return struct.pack("=BBHHHH", 1, kind, 999, SIZE if gso else 0, ip, 16) + head + tcp + data


def without_hint(data: bytes) -> bytes:
    """hdr_len of the virtio header is only a hint."""
    return data[:2] + data[4:]


@pytest.mark.parametrize("six", [False, True])
@pytest.mark.parametrize(("first", "end"), [(0, 1), (0, 3), (1, 2), (1, 4), (3, 5), (4, 5), (2, 5), (0, 5)])
def test_a_shortened_frame_equals_the_frame_of_its_segments(six: bool, first: int, end: int) -> None:
    data = bytes(n * 7 % 256 for n in range(4 * SIZE + 33))
    start = 0xFFFFFF80  # the sequence number wraps inside
    flags = ACK | PSH | FIN | CWR
    whole = frame(data, six=six, gso=True, sequence=start, flags=flags, identifier=0xFFFE)
    want_flags = ACK | (CWR if first == 0 else 0) | (PSH | FIN if end == 5 else 0)
    want = frame(
        data[first * SIZE : end * SIZE],
        six=six,
        gso=end - first > 1,
        sequence=start + first * SIZE,
        flags=want_flags,
        identifier=(0xFFFE + first) % 2**16,
    )
    assert without_hint(cut(whole, first, end)) == without_hint(want)


def test_wire_bytes_count_every_header() -> None:
    whole = frame(bytes(4 * SIZE + 33), six=False, gso=True, sequence=0, flags=ACK)
    assert measure(whole) == (5, 5 * 52 + 4 * SIZE + 33)
    assert segment_bytes(whole) == 152
    assert sum(measure(cut(whole, n, n + 1))[1] for n in range(5)) == measure(whole)[1]
    assert measure(bytes(VNET + 84)) == (1, 84)


def test_delay_is_half_the_rtt() -> None:
    direction = Direction(0, Profile(rtt=0.1))
    direction.arrive(5, bytes(VNET + 100))
    assert direction.flying[0][0] == 5 + 50 * MS


def test_rate_spaces_packets_by_their_time_on_the_wire() -> None:
    direction = Direction(0, Profile(rtt=0.01, rate_bits=8_000_000))
    for _ in range(3):
        direction.arrive(0, bytes(VNET + 1000))  # 1 ms each at 8 Mbit/s
    direction.arrive(10 * MS, bytes(VNET + 500))  # the wire was idle since 3 ms
    assert [due / MS for due, *_ in direction.flying] == [6.0, 7.0, 8.0, 15.5]


def test_the_tail_is_dropped_and_room_comes_back() -> None:
    direction = Direction(0, Profile(rate_bits=8_000_000, queue=3000))
    for _ in range(5):
        direction.arrive(0, bytes(VNET + 1000))
    assert (len(direction.flying), direction.dropped) == (3, 2)
    direction.arrive(1 * MS, bytes(VNET + 1000))
    direction.arrive(1 * MS, bytes(VNET + 1000))
    assert (len(direction.flying), direction.dropped) == (4, 3)


def test_a_gso_frame_loses_only_the_segments_that_do_not_fit() -> None:
    direction = Direction(0, Profile(rate_bits=8_000_000, queue=1500))
    whole = frame(bytes(20 * SIZE), six=False, gso=True, sequence=0, flags=ACK)
    direction.arrive(0, whole)
    assert direction.dropped == 20 - 1500 // 152
    assert direction.flying[0][1] == cut(whole, 0, 1500 // 152)


def test_loss_hits_segments_by_their_number() -> None:
    profile = Profile(loss=0.3, seed=9)
    direction = Direction(1, profile)
    data = bytes(n % 251 for n in range(50 * SIZE))
    for _ in range(4):
        direction.arrive(0, frame(data, six=False, gso=True, sequence=0, flags=ACK))
    got = b"".join(entry[1][VNET + 52 :] for entry in direction.flying)
    want = b"".join(
        data[n % 50 * SIZE : (n % 50 + 1) * SIZE] for n in range(200) if not seeded_random.lost(9, 1, n, 0.3)
    )
    assert got == want
    assert direction.lost == seeded_random.count_lost(9, 1, 0.3, 200) > 0


def test_rare_losses_beyond_the_first_block_are_found() -> None:
    profile = Profile(loss=0.0002, seed=3)
    direction = Direction(0, profile)
    for _ in range(5 * seeded_random.BLOCK):
        direction.arrive(0, bytes(VNET + 40))
    assert direction.lost == seeded_random.count_lost(3, 0, 0.0002, 5 * seeded_random.BLOCK) > 0


def test_a_change_restarts_the_numbers_and_keeps_the_order() -> None:
    direction = Direction(0, Profile(rtt=1.0, loss=0.5))
    for _ in range(20):
        direction.arrive(0, bytes(VNET + 40))
    flying = len(direction.flying)
    direction.change(Profile(rtt=0.0))
    direction.arrive(1, bytes(VNET + 40))
    assert direction.packets == 1
    assert direction.lost == 0
    assert len(direction.flying) == flying + 1
    assert direction.flying[-1][0] == 500 * MS


def test_lateness_percentiles() -> None:
    late = Lateness()
    assert late.as_dict() == {"count": 0, "p50": 0.0, "p99": 0.0, "max": 0.0}
    for n in range(1, 101):
        late.add(n * 100_000)
    assert late.percentile(0.5) == pytest.approx(0.005, abs=17e-6)
    assert late.percentile(0.99) == pytest.approx(0.0099, abs=17e-6)
    late.add(10**10)
    assert late.as_dict()["max"] == 10.0
    assert late.percentile(1.0) == 10.0
