"""Captures for tests: recorded on a link between two namespaces, or written packet by packet."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from netem.emulator.tun import NAME as DEVICE
from netem.two_hosts import TwoHosts
from tests.helpers.program import ROOT
from xenplugin.wire.preamble import MAGIC

A, B = "10.0.0.1", "10.0.0.2"


def noise(length: int, seed: int = 1) -> bytes:
    """Return random bytes, always the same for the same seed."""
    return random.Random(seed).randbytes(length)


#: The preamble of a sealed stream (docs/wire-format.md, section 3), random but for its magic number.
PREAMBLE = MAGIC + noise(56)


def frame(length: int, seed: int = 2) -> bytes:
    """Return a frame of a sealed stream (docs/wire-format.md, section 5) with `length` random bytes."""
    return struct.pack(">L", length) + noise(length, seed)


def stream(
    data: bytes, size: int = 1400, start: int = 1000, port: int = 7000, back: bool = False, caller: int = 40000
) -> list[Any]:
    """Return a SYN and the segments, of `size` bytes each, that carry `data` from A:caller to B:port; `back`: from
    B to A. The first byte has sequence number `start`."""
    from scapy.layers.inet import IP, TCP

    source, target = (port, caller) if back else (caller, port)
    ip = IP(src=B, dst=A) if back else IP(src=A, dst=B)
    packets = [ip / TCP(sport=source, dport=target, seq=(start - 1) % 2**32, flags="SA" if back else "S")]
    for at in range(0, len(data), size):
        tcp = TCP(sport=source, dport=target, seq=(start + at) % 2**32, flags="PA")
        packets.append(ip / tcp / data[at : at + size])
    return packets


def ike(body: bytes, *, exchange: int = 34, first: int = 33, version: int = 0x20) -> bytes:
    """Return an IKE message (RFC 7296, section 3.1), by default of the exchange that is in the clear. `first`: the
    type of its first payload."""
    if version == 0x10:
        exchange = 2
    return (
        b"initiate"
        + bytes([0] * 8 + [first, version, exchange, 0])
        + bytes(4)
        + struct.pack(">L", 28 + len(body))
        + body
    )


def write(path: Path, packets: list[Any]) -> Path:
    """Write packets (all Ethernet frames, or all IP packets) to a pcap file; return its path."""
    from scapy.layers.l2 import Ether
    from scapy.utils import PcapWriter

    link = 1 if isinstance(packets[0], Ether) else 101
    with PcapWriter(str(path), linktype=link, sync=True) as writer:
        writer.write(packets)
    return path


@contextlib.contextmanager
def recording(hosts: TwoHosts, path: Path) -> Iterator[dict[str, int]]:
    """Record in `path` all packets that hosts.a sends to and receives from the link. The dictionary has the number
    of "packets" when the recording has ended."""
    command = [sys.executable, "-m", "lab.verify.capture.record", DEVICE, str(path)]
    recorder = hosts.a.popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert recorder.stdout is not None and recorder.stdout.readline() == b"recording\n"
    counts: dict[str, int] = {}
    yield counts
    recorder.send_signal(signal.SIGTERM)
    counts.update(json.loads(recorder.communicate(timeout=60)[0]))
    assert counts["dropped"] == 0


def send(hosts: TwoHosts, port: int, data: bytes, answer: bytes = b"") -> None:
    """Send `data` from hosts.a to `port` of hosts.b over a new connection, as socat does, and `answer` back."""

    def serve() -> None:
        with server.accept()[0] as caller:
            caller.sendall(answer)
            while caller.recv(1 << 16):
                pass

    with hosts.b.call(lambda: socket.create_server((hosts.b.address, port))) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        with hosts.a.call(lambda: socket.create_connection((hosts.b.address, port))) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while client.recv(1 << 16):
                pass
        thread.join()
