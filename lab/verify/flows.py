"""What packets carry, and whose they are.

The strategy: take the few header fields that are needed by hand
(IPv4, IPv6, TCP, UDP, ESP, ICMP: the mass), and leave the naming of everything else to scapy's layers. A fragment
belongs to whom its first one belonged. What stands behind the end of an IP packet is payload like any other, unless
it is zeros.
"""

from __future__ import annotations

import struct
from socket import AF_INET, AF_INET6, inet_ntop
from typing import NamedTuple

from lab.verify.reading import Captured

_RAW_IP = (101, 12, 14, 228, 229)  # link types without a header
#: link type: where the type of what follows is, and where that begins. Ethernet; tcpdump -i any, old and new.
_HEADERS = {1: (12, 14), 113: (14, 16), 276: (0, 20)}
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_TCP, _UDP, _ESP, _ICMP, _ICMP6, _FRAGMENT = 6, 17, 50, 1, 58, 44
_EXTENSIONS = (0, 43, 60)  # IPv6: hop by hop, routing, destination options
_FRAGMENTED = 256  # packets in fragments that are remembered


class Segment(NamedTuple):
    """Of a TCP header: its numbers and its flags."""

    number: int
    acknowledged: int | None
    syn: bool
    fin: bool
    reset: bool

    @property
    def opens(self) -> bool:
        """It goes to the service's port, and is the first of a connection."""
        return self.syn and self.acknowledged is None


class Packet(NamedTuple):
    """What a packet carries. `protocol`: tcp, udp, esp, icmp, icmp6, arp or a name of scapy's. `flow` names its
    direction; `segment` is TCP's; `trailer`: bytes behind the packet's end."""

    protocol: str
    ports: tuple[int, int] | None
    flow: str
    payload: bytes
    trailer: bytes = b""
    segment: Segment | None = None


def reverse(flow: str) -> str:
    """The name of the other direction of a TCP flow."""
    source, _, target = flow.partition(" > ")
    return f"{target} > {source}"


class Parser:
    """Takes packets apart as far as this check needs; never fails. Remembers whose the fragments are."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str, int], Packet] = {}

    def parse(self, captured: Captured) -> Packet:
        """What the packet carries; what is unknown is named by scapy."""
        data, ethertype = captured.data, 0
        if captured.link in _HEADERS:
            kind, start = _HEADERS[captured.link]
            while data[kind : kind + 2] in (b"\x81\x00", b"\x88\xa8"):  # VLANs
                kind, start = start + 2, start + 4
            ethertype = int.from_bytes(data[kind : kind + 2], "big")
            data = data[start:]
        elif captured.link not in _RAW_IP:
            return _other(captured)
        try:
            if ethertype in (0, 0x0800) and data[0] >> 4 == 4:
                return self._ipv4(captured, data)
            if ethertype in (0, 0x86DD) and data[0] >> 4 == 6:
                return self._ipv6(captured, data)
        except (IndexError, ValueError, struct.error):  # it ends too early
            pass
        return _other(captured)

    def _ipv4(self, captured: Captured, data: bytes) -> Packet:
        source, target = (inet_ntop(AF_INET, data[at : at + 4]) for at in (12, 16))
        end = _length(data, 2) or len(data)
        head = (data[0] & 15) * 4
        inside, trailer = data[head:end], data[end:]
        number, place = struct.unpack_from("!HH", data, 4)
        if place & 0x3FFF:
            whose = (source, target, number)
            return self._fragment(captured, whose, data[9], place & 0x1FFF == 0, inside, trailer)
        return _transport(captured, data[9], source, target, inside, trailer)

    def _ipv6(self, captured: Captured, data: bytes) -> Packet:
        source, target = (inet_ntop(AF_INET6, data[at : at + 16]) for at in (8, 24))
        length = _length(data, 4)
        end = 40 + length if length else len(data)
        protocol, at = data[6], 40
        while protocol in _EXTENSIONS:
            protocol, at = data[at], at + 8 * (data[at + 1] + 1)
        inside, trailer = data[at:end], data[end:]
        if protocol == _FRAGMENT:
            place, number = struct.unpack_from("!HL", inside, 2)
            whose = (source, target, number)
            return self._fragment(captured, whose, inside[0], place >> 3 == 0, inside[8:], trailer)
        return _transport(captured, protocol, source, target, inside, trailer)

    def _fragment(
        self,
        captured: Captured,
        whose: tuple[str, str, int],
        protocol: int,
        first: bool,
        inside: bytes,
        trailer: bytes,
    ) -> Packet:
        source, target, _ = whose
        if first:
            found = _transport(captured, protocol, source, target, inside, trailer)
            while len(self._first) >= _FRAGMENTED:
                del self._first[next(iter(self._first))]
            self._first[whose] = found
            return found
        known = self._first.get(whose)
        name, ports = (known.protocol, known.ports) if known else ("ip-fragment", None)
        if name == "tcp":  # it has a place in a stream, which nobody knows; the stream will lack it
            name, ports = "ip-fragment", None
        flow = f"{source} > {target} {name} fragments"
        return Packet(name, ports, flow, inside, trailer)


def _length(data: bytes, at: int) -> int:
    """A 16-bit length; 0 means that the segment was too large for the field (offloading)."""
    return int(struct.unpack_from("!H", data, at)[0])


def _transport(
    captured: Captured, protocol: int, source: str, target: str, inside: bytes, trailer: bytes
) -> Packet:
    if protocol == _TCP:
        here, there, number, acknowledged, offset, flags = struct.unpack_from("!HHLLBB", inside)
        segment = Segment(
            number,
            acknowledged if flags & _ACK else None,
            bool(flags & _SYN),
            bool(flags & _FIN),
            bool(flags & _RST),
        )
        flow = f"{source}:{here} > {target}:{there}"
        return Packet("tcp", (here, there), flow, inside[(offset >> 4) * 4 :], trailer, segment)
    if protocol == _UDP:
        here, there = struct.unpack_from("!HH", inside)
        flow = f"{source}:{here} > {target}:{there} udp"
        return Packet("udp", (here, there), flow, inside[8:], trailer)
    names = {_ESP: "esp", _ICMP: "icmp", _ICMP6: "icmp6"}
    if protocol in names:
        name = names[protocol]
        return Packet(name, None, f"{source} > {target} {name}", inside, trailer)
    return _other(captured, f"{source} > {target}", inside + trailer)


def _other(captured: Captured, flow: str = "", inside: bytes | None = None) -> Packet:
    """None of these: its kind is the name of the innermost layer that scapy knows."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Ether

    first = captured.data[:1]
    links = {1: Ether, 113: CookedLinux, 276: CookedLinuxV2}
    kind = links.get(captured.link, IPv6 if first and first[0] >> 4 == 6 else IP)
    try:
        names = [layer.__name__.lower() for layer in kind(captured.data).layers()]
    except Exception:  # a packet that scapy cannot take apart, in whatever way, has no name
        names = []
    name = next((name for name in reversed(names) if name not in ("raw", "padding")), "nothing")
    return Packet(name, None, flow or name, captured.data if inside is None else inside)
