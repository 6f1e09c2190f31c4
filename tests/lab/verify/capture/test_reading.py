"""Captures are read to their end, or it is an error."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scapy", reason="scapy is not installed")
pytest.importorskip("numpy", reason="numpy is not installed")

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter, PcapWriter

from lab.verify.content.canary import make_canaries
from lab.verify.judge.check import CaptureError, check_capture
from tests.helpers.wire import A, B, noise, stream, write

CANARIES = make_canaries(2, "test")


def test_truncated_packets_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "short.pcap"
    with PcapWriter(str(path), linktype=101, snaplen=60, sync=True) as writer:
        writer.write_header(None)
        writer.write_packet(bytes(stream(noise(500))[1])[:60], wirelen=540, caplen=60)
    finding = check_capture(path, CANARIES)
    assert finding.truncated == 1 and not finding.complete


def test_pcapng_is_read(tmp_path: Path) -> None:
    path = tmp_path / "test.pcapng"
    with PcapNgWriter(str(path)) as writer:
        writer.write([Ether() / packet for packet in stream(CANARIES[0])])
    assert check_capture(path, CANARIES).spellings == {"raw"}


def test_a_truncated_pcapng_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "test.pcapng"
    with PcapNgWriter(str(path)) as writer:
        writer.write([Ether() / packet for packet in stream(noise(9000))])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    for _ in range(9):  # scapy logs some messages only once
        with pytest.raises(CaptureError, match="PcapNg"):
            check_capture(path, CANARIES)
    assert capfd.readouterr().err == ""


def test_a_truncated_pcap_has_a_truncated_last_packet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "test.pcap", stream(noise(9000)))
    path.write_bytes(path.read_bytes()[:-100])
    assert check_capture(path, CANARIES).truncated == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("packed", [False, True], ids=["pcap", "pcap.gz"])
@pytest.mark.parametrize("kind", [PcapWriter, PcapNgWriter], ids=["pcap", "pcapng"])
def test_a_capture_that_ends_within_a_header_is_an_error(kind: Any, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "test.pcap"
    with kind(str(path)) as writer:
        writer.write([Ether() / packet for packet in stream(noise(9000))])
        writer.flush()
        whole = path.read_bytes()
        writer.write([Ether() / noise(60)])
    data = path.read_bytes()
    assert len(data) > len(whole) + 60
    for cut in (len(whole) + 1, len(whole) + 3, len(whole) + 7, len(whole) + 15):
        path.write_bytes(gzip.compress(data[:cut]) if packed else data[:cut])
        with pytest.raises(CaptureError, match=r"test.pcap"):
            check_capture(path, CANARIES)
    for good in (data, whole):
        path.write_bytes(gzip.compress(good) if packed else good)
        assert check_capture(path, CANARIES).complete
    if packed:
        path.write_bytes(gzip.compress(data)[:-20])
        with pytest.raises(CaptureError, match=r"test.pcap"):
            check_capture(path, CANARIES)


def test_a_pcapng_with_a_wrong_length_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "test.pcapng"
    with PcapNgWriter(str(path)) as writer:
        writer.write([Ether() / packet for packet in stream(noise(9000))])
    data = bytearray(path.read_bytes())
    at = data.rindex(struct.pack("<L", 6))  # the last packet's block
    data[at - 4] ^= 4  # the length at the end of the one before it
    path.write_bytes(data)
    with pytest.raises(CaptureError, match="it cannot be read to its end"):
        check_capture(path, CANARIES)


def test_a_file_that_is_no_capture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"no capture at all, but long enough")
    for name in ("junk", "missing"):
        with pytest.raises(CaptureError, match=name):
            check_capture(tmp_path / name, CANARIES)


def test_an_empty_capture_is_not_complete(tmp_path: Path) -> None:
    path = tmp_path / "empty.pcap"
    with PcapWriter(str(path), linktype=101, sync=True) as writer:
        writer.write_header(None)
    assert not check_capture(path, CANARIES).complete


def test_unsegmented_packets_are_read_whole(tmp_path: Path) -> None:
    """With segmentation offload a packet and its link header exceed 65535 bytes."""
    packets = [Ether() / packet for packet in stream(b"")]
    data = noise(65_535 - 40 - 12)
    tcp = TCP(sport=40000, dport=7000, seq=1000, flags="A", options=[("Timestamp", (1, 2)), *[("NOP", None)] * 2])
    packets.append(Ether() / IP(src=A, dst=B) / tcp / data)
    assert len(packets[-1]) == 65_549
    finding = check_capture(write(tmp_path / "x.pcap", packets), CANARIES)
    assert finding.complete and finding.payload_bytes == len(data)


def test_an_unknown_link_type(tmp_path: Path) -> None:
    """With link type 0 no packet can be recognised, but all are searched."""
    path = tmp_path / "test.pcapng"
    with PcapNgWriter(str(path)) as writer:
        writer.write([Ether() / packet for packet in stream(CANARIES[0])])
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<L", 1), 28) + 8  # of the block that describes the interface
    data[at : at + 2] = bytes(2)
    path.write_bytes(data)
    finding = check_capture(path, CANARIES)
    assert finding.packets == 2 and finding.hits and not finding.kinds.keys() & {"tcp/7000"}
