"""Recognises what a packet or a TCP stream is, by its protocol, ports and first bytes.

A port alone proves nothing: port 22 must carry ssh, the plugin's ports its sealed stream, IKE's ports its messages.
"""

from __future__ import annotations

from enum import StrEnum

from lab.verify.capture.packets import Packet
from lab.verify.content.clear_filters import (
    AllClear,
    EspFilter,
    Filter,
    IcmpErrorFilter,
    IkeFilter,
    NothingClear,
    begins_sealed,
    begins_ssh,
)
from lab.verify.content.message_formats import is_arp, is_icmp_error, is_ike, is_neighbour_discovery, is_ping

_IKE, _NATT = 500, 4500
_ICMP = {"icmp": 4, "icmp6": 6}


class Meaning(StrEnum):
    """The protocol that the content of a packet or stream was recognised as. The values are part of the JSON
    output."""

    SSH = "ssh"
    PLUGIN = "plugin"
    IKE = "ike"
    ESP = "esp"
    ARP = "arp"
    NEIGHBOURS = "ndp"
    ICMP = "icmp"
    ICMP_ERROR = "icmp error"


def packet_meaning(packet: Packet) -> Meaning | None:
    """Return what a packet of a protocol other than TCP is; None if it is not recognised."""
    payload = packet.payload
    if packet.protocol == "udp" and packet.ports:
        if set(packet.ports) == {_IKE}:
            return Meaning.IKE if is_ike(payload) else None
        if set(packet.ports) == {_NATT}:
            # RFC 3948: four zero bytes where ESP has its SPI, or one byte that keeps the NAT mapping alive
            if payload[:4] == bytes(4):
                return Meaning.IKE if is_ike(payload[4:]) else None
            return Meaning.IKE if payload == b"\xff" else Meaning.ESP
    elif packet.protocol == "esp":
        return Meaning.ESP
    elif packet.protocol == "arp":
        return Meaning.ARP if is_arp(payload) else None
    elif packet.protocol in _ICMP:
        version = _ICMP[packet.protocol]
        target = packet.flow.partition(" > ")[2].partition(" ")[0]
        if is_icmp_error(payload, version, target):
            return Meaning.ICMP_ERROR
        if version == 6 and is_neighbour_discovery(payload):
            return Meaning.NEIGHBOURS
        return Meaning.ICMP if is_ping(payload, version) else None
    return None


def packet_filter(meaning: Meaning | None) -> Filter:
    """Return a new filter for packets with this meaning."""
    filters: dict[Meaning | None, type[EspFilter | IkeFilter | IcmpErrorFilter | AllClear]] = {
        Meaning.ESP: EspFilter,
        Meaning.IKE: IkeFilter,
        Meaning.ICMP_ERROR: IcmpErrorFilter,
        Meaning.ARP: AllClear,
        Meaning.NEIGHBOURS: AllClear,
        Meaning.ICMP: AllClear,
    }
    return filters[meaning]() if meaning in filters else NothingClear()


def stream_meaning(beginning: bytes, answers_sealed: bool) -> Meaning | None:
    """Return what a direction of a TCP connection is by its first 8 bytes or more; None if it is not recognised.
    `answers_sealed`: the other direction is the sending direction of a sealed stream."""
    if begins_sealed(beginning) or answers_sealed:
        return Meaning.PLUGIN
    return Meaning.SSH if begins_ssh(beginning) else None
