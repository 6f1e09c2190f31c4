"""What packets carry, and whose they are.

The strategy: take the few header fields that are needed by hand (IPv4, IPv6, TCP, UDP, ESP, ICMP: the mass), and
leave the naming of everything else to scapy's layers. A fragment belongs to whom its first one belonged, and waits
for it. What stands behind the end of an IP packet is payload like any other, unless it is zeros.
"""

from __future__ import annotations

import struct
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Any, NamedTuple

from lab.verify.capture.reading import Captured

_RAW_IP = (101, 12, 14, 228, 229)  # link types without a header
#: link type: where the type of what follows is, and where that begins. Ethernet; tcpdump -i any, old and new.
_HEADERS = {1: (12, 14), 113: (14, 16), 276: (0, 20)}
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_TCP, _UDP, _ICMP6, _FRAGMENT = 6, 17, 58, 44
_NAMES = {50: "esp", 1: "icmp", _ICMP6: "icmp6"}
_EXTENSIONS = (0, 43, 60)  # IPv6: hop by hop, routing, destination options
#: The one header that is in everybody's way: in front of who listens to what, for routers (RFC 2711), and padded.
_ALERTS = tuple(bytes([_ICMP6, 0]) + options for options in (b"\5\2\0\0\1\0", b"\1\0\5\2\0\0"))
_FRAGMENTED = 256  # packets in fragments that are remembered, and fragments that wait

_Whose = tuple[str, str, int]  # source, target, number


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
    direction; `length`: on the wire, bytes; `segment` is TCP's; `options`: of all headers; `extended`: IPv6's
    headers are more than they have to be; `trailer`: bytes behind the packet's end."""

    protocol: str
    ports: tuple[int, int] | None
    flow: str
    payload: bytes
    length: int
    segment: Segment | None = None
    options: bytes = b""
    extended: bool = False
    trailer: bytes = b""


def reverse(flow: str) -> str:
    """The name of the other direction of a TCP flow."""
    source, _, target = flow.partition(" > ")
    return f"{target} > {source}"


class Parser:
    """Takes packets apart as far as this check needs; never fails. Remembers whose the fragments are, and keeps
    those that came before the first one."""

    def __init__(self) -> None:
        self._first: dict[_Whose, Packet] = {}
        self._waiting: dict[_Whose, list[Packet]] = {}
        self._waits = 0

    def parse(self, captured: Captured) -> list[Packet]:
        """What the packet carries; what is unknown is named by scapy. A fragment may have to wait, and others may
        have waited for it."""
        data, ethertype = captured.data, 0
        if captured.link in _HEADERS:
            kind, start = _HEADERS[captured.link]
            while data[kind : kind + 2] in (b"\x81\x00", b"\x88\xa8"):  # VLANs
                kind, start = start + 2, start + 4
            ethertype = int.from_bytes(data[kind : kind + 2], "big")
            data = data[start:]
        elif captured.link not in _RAW_IP:
            return [_other(captured)]
        try:
            if ethertype in (0, 0x0800) and data[0] >> 4 == 4:
                return self._ipv4(captured, data)
            if ethertype in (0, 0x86DD) and data[0] >> 4 == 6:
                return self._ipv6(captured, data)
        except (IndexError, ValueError, struct.error):  # it ends too early
            pass
        return [_other(captured)]

    def rest(self) -> list[Packet]:
        """Fragments whose first one never came."""
        found = [packet for packets in self._waiting.values() for packet in packets]
        self._waiting.clear()
        self._waits = 0
        return found

    def _ipv4(self, captured: Captured, data: bytes) -> list[Packet]:
        source, target = (inet_ntop(AF_INET, data[at : at + 4]) for at in (12, 16))
        end = _length(data, 2) or len(data)
        head = (data[0] & 15) * 4
        number, place = struct.unpack_from("!HH", data, 4)
        around = {"options": data[20:head], "trailer": data[end:]}
        if place & 0x3FFF:
            whose = (source, target, number)
            return self._fragment(captured, whose, data[9], place & 0x1FFF == 0, data[head:end], around)
        return [_transport(captured, data[9], source, target, data[head:end], around)]

    def _ipv6(self, captured: Captured, data: bytes) -> list[Packet]:
        source, target = (inet_ntop(AF_INET6, data[at : at + 16]) for at in (8, 24))
        length = _length(data, 4)
        end = 40 + length if length else len(data)
        protocol, at = data[6], 40
        while protocol in _EXTENSIONS:
            protocol, at = data[at], at + 8 * (data[at + 1] + 1)
        extended = at > 40 and data[40:at] not in _ALERTS
        around = {"options": data[40:at], "extended": extended, "trailer": data[end:]}
        inside = data[at:end]
        if protocol == _FRAGMENT:
            place, number = struct.unpack_from("!HL", inside, 2)
            whose = (source, target, number)
            return self._fragment(captured, whose, inside[0], place >> 3 == 0, inside[8:], around)
        return [_transport(captured, protocol, source, target, inside, around)]

    def _fragment(
        self, captured: Captured, whose: _Whose, protocol: int, first: bool, inside: bytes, around: dict[str, Any]
    ) -> list[Packet]:
        source, target, _ = whose
        if first:
            found = _transport(captured, protocol, source, target, inside, around)
            while len(self._first) >= _FRAGMENTED:
                del self._first[next(iter(self._first))]
            self._first[whose] = found
            waited = self._waiting.pop(whose, [])
            self._waits -= len(waited)
            return [found, *(_following(found, packet) for packet in waited)]
        flow = f"{source} > {target} ip-fragment fragments"
        packet = Packet("ip-fragment", None, flow, inside, captured.length, **around)
        known = self._first.get(whose)
        if known is not None:
            return [_following(known, packet)]
        self._waiting.setdefault(whose, []).append(packet)
        self._waits += 1
        return self.rest() if self._waits > _FRAGMENTED else []


def _following(first: Packet, packet: Packet) -> Packet:
    """A fragment whose first one is known. TCP's has a place in a stream, which nobody knows; the stream will lack
    it."""
    if first.protocol == "tcp":
        return packet
    flow = packet.flow.replace("ip-fragment", first.protocol)
    return packet._replace(protocol=first.protocol, ports=first.ports, flow=flow)


def _length(data: bytes, at: int) -> int:
    """A 16-bit length; 0 means that the segment was too large for the field (offloading)."""
    return int(struct.unpack_from("!H", data, at)[0])


def _transport(
    captured: Captured, protocol: int, source: str, target: str, inside: bytes, around: dict[str, Any]
) -> Packet:
    if protocol in (_TCP, _UDP):
        here, there = struct.unpack_from("!HH", inside)
        flow = f"{source}:{here} > {target}:{there}"
        if protocol == _UDP:
            return Packet("udp", (here, there), f"{flow} udp", inside[8:], captured.length, **around)
        number, acknowledged, offset, flags = struct.unpack_from("!LLBB", inside, 4)
        segment = Segment(
            number,
            acknowledged if flags & _ACK else None,
            bool(flags & _SYN),
            bool(flags & _FIN),
            bool(flags & _RST),
        )
        head = (offset >> 4) * 4
        around = {**around, "options": around["options"] + inside[20:head]}
        return Packet("tcp", (here, there), flow, inside[head:], captured.length, segment, **around)
    if protocol in _NAMES:
        name = _NAMES[protocol]
        return Packet(name, None, f"{source} > {target} {name}", inside, captured.length, **around)
    found = _other(captured, f"{source} > {target}", inside + around["trailer"])
    return found._replace(**{**around, "trailer": b""})


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
    return Packet(name, None, flow or name, captured.data if inside is None else inside, captured.length)
