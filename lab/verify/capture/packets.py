"""Parse captured packets: protocol, ports, flow and payload.

The strategy: the few header fields that the check needs of IPv4, IPv6, TCP, UDP, ESP and ICMP are read here,
because nearly all packets are of these; scapy's layers only name the rest. A fragment gets the protocol and ports
of its packet's first fragment, and waits until that has been captured. Bytes after the end of an IP packet count as
payload (`trailer`).
"""

from __future__ import annotations

import struct
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Any, NamedTuple

from lab.verify.capture.reading import Captured

_RAW_IP = (101, 12, 14, 228, 229)  # link types without a header
#: link type: offset of the type of the network layer, offset of that layer. Ethernet; tcpdump -i any, old and new.
_LINK_HEADERS = {1: (12, 14), 113: (14, 16), 276: (0, 20)}
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_TCP, _UDP, _ICMP6, _FRAGMENT = 6, 17, 58, 44
_NAMES = {50: "esp", 1: "icmp", _ICMP6: "icmp6"}
_EXTENSIONS = (0, 43, 60)  # IPv6 headers: hop by hop, routing, destination options
#: Multicast listener reports always carry a padded router alert (RFC 2711), so these headers do not count as extra.
_ROUTER_ALERTS = tuple(bytes([_ICMP6, 0]) + options for options in (b"\5\2\0\0\1\0", b"\1\0\5\2\0\0"))
_MAX_FRAGMENTS = 256  # first fragments that are remembered; and fragments that wait for their first one

_FragmentKey = tuple[str, str, int]  # source, target, identification of the IP packet


class Segment(NamedTuple):
    """Sequence numbers and flags of a TCP header. `acknowledged` is None without the ACK flag."""

    number: int
    acknowledged: int | None
    syn: bool
    fin: bool
    reset: bool

    @property
    def opens(self) -> bool:
        """Whether this is the first segment of a connection, sent by the client."""
        return self.syn and self.acknowledged is None


class Packet(NamedTuple):
    """A parsed packet. `protocol`: tcp, udp, esp, icmp, icmp6, arp or scapy's name of the innermost layer; `flow`:
    name of the direction; `length`: bytes on the wire; `segment`: of TCP only; `options`: those of all headers;
    `extended`: has more IPv6 headers than needed; `trailer`: bytes after the end of the IP packet."""

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
    """Return the name of the other direction of a TCP flow."""
    source, _, target = flow.partition(" > ")
    return f"{target} > {source}"


class Parser:
    """Parses packets; never fails. Keeps fragments until the first fragment of their packet has been captured."""

    def __init__(self) -> None:
        self._first: dict[_FragmentKey, Packet] = {}
        self._waiting: dict[_FragmentKey, list[Packet]] = {}
        self._waiting_count = 0

    def parse(self, captured: Captured) -> list[Packet]:
        """Return the parsed packet, followed by fragments that waited for it; nothing for a fragment that has to
        wait."""
        data, ethertype = captured.data, 0
        if captured.link in _LINK_HEADERS:
            kind, start = _LINK_HEADERS[captured.link]
            while data[kind : kind + 2] in (b"\x81\x00", b"\x88\xa8"):  # VLANs
                kind, start = start + 2, start + 4
            ethertype = int.from_bytes(data[kind : kind + 2], "big")
            data = data[start:]
        elif captured.link not in _RAW_IP:
            return [_named_by_scapy(captured)]
        try:
            if ethertype in (0, 0x0800) and data[0] >> 4 == 4:
                return self._ipv4(captured, data)
            if ethertype in (0, 0x86DD) and data[0] >> 4 == 6:
                return self._ipv6(captured, data)
        except (IndexError, ValueError, struct.error):  # the packet ends within a header
            pass
        return [_named_by_scapy(captured)]

    def take_waiting(self) -> list[Packet]:
        """Return and forget the fragments whose first fragment was not captured."""
        found = [packet for packets in self._waiting.values() for packet in packets]
        self._waiting.clear()
        self._waiting_count = 0
        return found

    def _ipv4(self, captured: Captured, data: bytes) -> list[Packet]:
        source, target = (inet_ntop(AF_INET, data[at : at + 4]) for at in (12, 16))
        end = _length(data, 2) or len(data)
        head = (data[0] & 15) * 4
        number, place = struct.unpack_from("!HH", data, 4)
        extra = {"options": data[20:head], "trailer": data[end:]}
        if place & 0x3FFF:
            key = (source, target, number)
            return self._fragment(captured, key, data[9], place & 0x1FFF == 0, data[head:end], extra)
        return [_transport(captured, data[9], source, target, data[head:end], extra)]

    def _ipv6(self, captured: Captured, data: bytes) -> list[Packet]:
        source, target = (inet_ntop(AF_INET6, data[at : at + 16]) for at in (8, 24))
        length = _length(data, 4)
        end = 40 + length if length else len(data)
        protocol, at = data[6], 40
        while protocol in _EXTENSIONS:
            protocol, at = data[at], at + 8 * (data[at + 1] + 1)
        extended = at > 40 and data[40:at] not in _ROUTER_ALERTS
        extra = {"options": data[40:at], "extended": extended, "trailer": data[end:]}
        content = data[at:end]
        if protocol == _FRAGMENT:
            place, number = struct.unpack_from("!HL", content, 2)
            key = (source, target, number)
            return self._fragment(captured, key, content[0], place >> 3 == 0, content[8:], extra)
        return [_transport(captured, protocol, source, target, content, extra)]

    def _fragment(
        self,
        captured: Captured,
        key: _FragmentKey,
        protocol: int,
        first: bool,
        content: bytes,
        extra: dict[str, Any],
    ) -> list[Packet]:
        source, target, _ = key
        if first:
            found = _transport(captured, protocol, source, target, content, extra)
            while len(self._first) >= _MAX_FRAGMENTS:
                del self._first[next(iter(self._first))]
            self._first[key] = found
            waited = self._waiting.pop(key, [])
            self._waiting_count -= len(waited)
            return [found, *(_as_fragment_of(found, packet) for packet in waited)]
        flow = f"{source} > {target} ip-fragment fragments"
        packet = Packet("ip-fragment", None, flow, content, captured.length, **extra)
        known = self._first.get(key)
        if known is not None:
            return [_as_fragment_of(known, packet)]
        self._waiting.setdefault(key, []).append(packet)
        self._waiting_count += 1
        return self.take_waiting() if self._waiting_count > _MAX_FRAGMENTS else []


def _as_fragment_of(first: Packet, packet: Packet) -> Packet:
    """Return a fragment with protocol, ports and flow of its packet's first fragment. A fragment of TCP stays as it
    is: its place in the stream is unknown, and the stream will report the hole."""
    if first.protocol == "tcp":
        return packet
    flow = packet.flow.replace("ip-fragment", first.protocol)
    return packet._replace(protocol=first.protocol, ports=first.ports, flow=flow)


def _length(data: bytes, at: int) -> int:
    """Return a 16-bit length; 0 if the packet was too large for the field (segmentation offload)."""
    return int(struct.unpack_from("!H", data, at)[0])


def _transport(
    captured: Captured, protocol: int, source: str, target: str, content: bytes, extra: dict[str, Any]
) -> Packet:
    """Parse the content of an IP packet."""
    if protocol in (_TCP, _UDP):
        source_port, target_port = struct.unpack_from("!HH", content)
        ports = (source_port, target_port)
        flow = f"{source}:{source_port} > {target}:{target_port}"
        if protocol == _UDP:
            return Packet("udp", ports, f"{flow} udp", content[8:], captured.length, **extra)
        number, acknowledged, offset, flags = struct.unpack_from("!LLBB", content, 4)
        segment = Segment(
            number,
            acknowledged if flags & _ACK else None,
            bool(flags & _SYN),
            bool(flags & _FIN),
            bool(flags & _RST),
        )
        head = (offset >> 4) * 4
        extra = {**extra, "options": extra["options"] + content[20:head]}
        return Packet("tcp", ports, flow, content[head:], captured.length, segment, **extra)
    if protocol in _NAMES:
        name = _NAMES[protocol]
        return Packet(name, None, f"{source} > {target} {name}", content, captured.length, **extra)
    found = _named_by_scapy(captured, f"{source} > {target}", content + extra["trailer"])
    return found._replace(**{**extra, "trailer": b""})


def _named_by_scapy(captured: Captured, flow: str = "", content: bytes | None = None) -> Packet:
    """Return a packet of another protocol, named after the innermost layer that scapy knows."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import CookedLinux, CookedLinuxV2, Ether

    first = captured.data[:1]
    links = {1: Ether, 113: CookedLinux, 276: CookedLinuxV2}
    kind = links.get(captured.link, IPv6 if first and first[0] >> 4 == 6 else IP)
    try:
        names = [layer.__name__.lower() for layer in kind(captured.data).layers()]
    except Exception:  # scapy's parsers raise errors of many types for malformed packets
        names = []
    name = next((name for name in reversed(names) if name not in ("raw", "padding")), "nothing")
    return Packet(name, None, flow or name, captured.data if content is None else content, captured.length)
