"""From packets to bytes in order: what a capture holds, as streams.

The strategy: read a capture packet by packet with scapy, take the few header fields that are needed by
hand (IPv4, IPv6, TCP, UDP: the mass), leave the naming of everything else to scapy's layers, and put each
TCP direction in order with a bounded window of segments that came early. A hole that cannot be filled is
counted, never papered over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

EARLY = 1 << 24  # bytes held per direction while an earlier segment is missing
_ETHERNET, _RAW_IP = 1, (101, 12, 14, 228, 229)  # link types
_SYN, _ACK = 0x02, 0x10


class CaptureError(Exception):
    """The capture cannot be taken or read."""


class Captured(NamedTuple):
    """A packet as the capture holds it; `length` is its length on the wire, bytes."""

    link: int
    data: bytes
    length: int


class Packet(NamedTuple):
    """What a packet carries. `flow` names its direction; `number` is TCP's sequence number, else None."""

    protocol: str
    ports: tuple[int, int] | None
    flow: str
    number: int | None
    syn: bool
    opens: bool  # a SYN without ACK: it goes to the service's port
    payload: bytes


def read(path: Path) -> Iterator[Captured]:
    """Each packet of a pcap or pcapng file. CaptureError if it cannot be read or scapy is missing."""
    try:
        import numpy  # noqa: F401  (lab.verify.noise needs it; better to say so now than in the middle)
        from scapy.error import Scapy_Exception
        from scapy.utils import RawPcapReader
    except ImportError as error:
        raise CaptureError("checking a capture needs scapy and numpy: pip install 'xenplugin[lab]'") from error
    try:
        with RawPcapReader(str(path)) as reader:
            for data, meta in reader:
                link = getattr(meta, "linktype", None) or reader.linktype
                yield Captured(link, data, meta.wirelen)
    except (OSError, EOFError, Scapy_Exception) as error:
        raise CaptureError(f"{path}: {error}") from error


def reverse(flow: str) -> str:
    """The name of the other direction of a TCP flow."""
    source, _, target = flow.partition(" > ")
    return f"{target} > {source}"


def parse(captured: Captured) -> Packet:
    """Take a packet apart as far as this check needs; never fails, what is unknown is named by scapy."""
    data = captured.data
    if captured.link == _ETHERNET:
        ethertype, start = struct.unpack_from("!H", data, 12)[0] if len(data) >= 14 else 0, 14
        if ethertype == 0x8100 and len(data) >= 18:
            ethertype, start = struct.unpack_from("!H", data, 16)[0], 18
        if ethertype not in (0x0800, 0x86DD):
            return _other(captured)
        data = data[start:]
    elif captured.link not in _RAW_IP:
        return _other(captured)
    try:
        version = data[0] >> 4
        if version == 4:
            return _ipv4(captured, data)
        if version == 6:
            return _transport(captured, data[6], *_ends(data, 8, 16), data[40 : 40 + _length(data, 4)])
    except (IndexError, struct.error):
        pass
    return _other(captured)


def _length(data: bytes, at: int) -> int:
    """A 16-bit length; 0 means that the segment was too large for the field (offloading): all of it."""
    return int(struct.unpack_from("!H", data, at)[0]) or len(data)


def _ends(data: bytes, at: int, size: int) -> tuple[str, str]:
    from socket import AF_INET, AF_INET6, inet_ntop

    family = AF_INET if size == 4 else AF_INET6
    return inet_ntop(family, data[at : at + size]), inet_ntop(family, data[at + size : at + 2 * size])


def _ipv4(captured: Captured, data: bytes) -> Packet:
    source, target = _ends(data, 12, 4)
    inside = data[(data[0] & 15) * 4 : _length(data, 2)]
    if struct.unpack_from("!H", data, 6)[0] & 0x3FFF:
        return Packet("ip-fragment", None, f"{source} > {target} fragments", None, False, False, inside)
    return _transport(captured, data[9], source, target, inside)


def _transport(captured: Captured, protocol: int, source: str, target: str, inside: bytes) -> Packet:
    if protocol == 6:
        here, there, number, _, offset, flags = struct.unpack_from("!HHLLBB", inside)
        return Packet(
            "tcp",
            (here, there),
            f"{source}:{here} > {target}:{there}",
            number,
            bool(flags & _SYN),
            flags & (_SYN | _ACK) == _SYN,
            inside[(offset >> 4) * 4 :],
        )
    if protocol == 17:
        here, there = struct.unpack_from("!HH", inside)
        flow = f"{source}:{here} > {target}:{there} udp"
        return Packet("udp", (here, there), flow, None, False, False, inside[8:])
    return _other(captured, f"{source} > {target}", inside)


def _other(captured: Captured, flow: str = "", inside: bytes | None = None) -> Packet:
    """Neither TCP nor UDP: its kind is the name of the innermost layer that scapy knows."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    first = captured.data[:1]
    kind = Ether if captured.link == _ETHERNET else IPv6 if first and first[0] >> 4 == 6 else IP
    names = [layer.__name__.lower() for layer in kind(captured.data).layers()]
    name = next((name for name in reversed(names) if name not in ("raw", "padding")), "nothing")
    return Packet(name, None, flow or name, None, False, False, captured.data if inside is None else inside)


class Sink(Protocol):
    """Who takes the bytes of a stream in order."""

    def add(self, data: bytes) -> None:
        """The next bytes."""

    def close(self) -> None:
        """There are no more for now."""


def _ahead(number: int, of: int) -> int:
    """How far sequence `number` lies after `of`, modulo 2^32; negative: before it."""
    return (number - of + 0x80000000 & 0xFFFFFFFF) - 0x80000000


class Order:
    """TCP's order for one direction: early segments wait, repeated bytes are dropped, holes counted."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._next: int | None = None
        self._early: dict[int, bytes] = {}
        self._held = 0
        self.repeated = 0  # bytes
        self.missing = 0  # bytes

    def segment(self, number: int | None, syn: bool, data: bytes) -> None:
        """A segment with sequence number `number` (of the SYN itself, if `syn`); None: simply the next."""
        if number is None:
            self._sink.add(data)
            return
        if syn:
            number = number + 1 & 0xFFFFFFFF
            if self._next != number:  # not merely the same SYN again
                self.close()
                self._next = number
        if self._next is None:  # the capture began in the middle of the stream
            self._next = number
        if not data:
            return
        if _ahead(number, self._next) <= 0:
            self._next = self._deliver(self._next, number, data)
            self._release()
        elif len(data) > len(self._early.get(number, b"")):
            self._held += len(data) - len(self._early.get(number, b""))
            self._early[number] = data
            if self._held > EARLY:
                self._skip()
        else:
            self.repeated += len(data)

    def _deliver(self, here: int, number: int, data: bytes) -> int:
        """Hand on what of `data` is new at `here`; returns the next number wanted."""
        old = min(-_ahead(number, here), len(data))
        self.repeated += old
        if old < len(data):
            self._sink.add(data[old:])
        return here + len(data) - old & 0xFFFFFFFF

    def _first(self, here: int) -> int:
        return min(self._early, key=lambda number: _ahead(number, here))

    def _release(self) -> None:
        """Segments that waited and whose turn has come."""
        while self._early and self._next is not None:
            number = self._first(self._next)
            if _ahead(number, self._next) > 0:
                return
            data = self._early.pop(number)
            self._held -= len(data)
            self._next = self._deliver(self._next, number, data)

    def _skip(self) -> None:
        """Give up the bytes before the first segment that waits: the capture does not hold them."""
        if self._next is not None:
            number = self._first(self._next)
            self.missing += _ahead(number, self._next)
            self._next = number
            self._release()

    def close(self) -> None:
        """The end of the stream: holes that are still open stay holes."""
        while self._early:
            self._skip()
        self._sink.close()
