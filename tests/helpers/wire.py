"""Captures made by tests: of a link between namespaces, or written packet by packet."""

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

A, B = "10.0.0.1", "10.0.0.2"


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def stream(
    data: bytes, size: int = 1400, start: int = 1000, port: int = 7000, back: bool = False, caller: int = 40000
) -> list[Any]:
    """One direction of a TCP connection from A:caller to B:port, in segments of `size` bytes; `back`: the other."""
    from scapy.layers.inet import IP, TCP

    source, target = (port, caller) if back else (caller, port)
    ip = IP(src=B, dst=A) if back else IP(src=A, dst=B)
    packets = [ip / TCP(sport=source, dport=target, seq=(start - 1) % 2**32, flags="SA" if back else "S")]
    for at in range(0, len(data), size):
        tcp = TCP(sport=source, dport=target, seq=(start + at) % 2**32, flags="PA")
        packets.append(ip / tcp / data[at : at + size])
    return packets


def ike(body: bytes, *, exchange: int = 34, first: int = 33, version: int = 0x20) -> bytes:
    """A message of IKE, by default of the exchange that is in the clear (RFC 7296, section 3.1). `first`: what its
    first payload is."""
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
    from scapy.layers.l2 import Ether
    from scapy.utils import PcapWriter

    link = 1 if isinstance(packets[0], Ether) else 101
    with PcapWriter(str(path), linktype=link, sync=True) as writer:
        writer.write(packets)
    return path


@contextlib.contextmanager
def recording(world: TwoHosts, path: Path) -> Iterator[None]:
    """What leaves and reaches world.a by the link is in `path` afterwards."""
    words = [sys.executable, "-m", "lab.verify.capture.record", DEVICE, str(path)]
    recorder = world.a.popen(words, cwd=ROOT, stdout=subprocess.PIPE)
    assert recorder.stdout is not None and recorder.stdout.readline() == b"recording\n"
    yield
    recorder.send_signal(signal.SIGTERM)
    assert json.loads(recorder.communicate(timeout=60)[0])["dropped"] == 0


def send(world: TwoHosts, port: int, data: bytes, answer: bytes = b"") -> None:
    """`data` from world.a to world.b:port over a connection of its own, as socat does, and `answer` back."""

    def serve() -> None:
        with server.accept()[0] as caller:
            caller.sendall(answer)
            while caller.recv(1 << 16):
                pass

    with world.b.call(lambda: socket.create_server((world.b.address, port))) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        with world.a.call(lambda: socket.create_connection((world.b.address, port))) as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while client.recv(1 << 16):
                pass
        thread.join()
