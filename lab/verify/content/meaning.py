"""Recognise what a packet or a TCP stream is, by its protocol, ports and first bytes.

A port alone proves nothing: port 22 must carry ssh, the plugin's ports its sealed stream, IKE's ports its messages.
"""

from __future__ import annotations

from enum import StrEnum

from lab.verify.capture.packets import Packet
from lab.verify.content.clear_filters import (
    Esp,
    Everything,
    Filter,
    Ike,
    Nothing,
    Quotes,
    begins_sealed,
    begins_ssh,
)
from lab.verify.content.message_formats import is_arp, is_error, is_ike, is_neighbours, is_ping

_IKE, _NATT = 500, 4500
_ICMP = {"icmp": 4, "icmp6": 6}


class Meaning(StrEnum):
    """What a packet is known to be."""

    SSH = "ssh"
    PLUGIN = "plugin"
    IKE = "ike"
    ESP = "esp"
    ARP = "arp"
    NEIGHBOURS = "ndp"
    ICMP = "icmp"
    ICMP_ERROR = "icmp error"


def packet_meaning(packet: Packet) -> Meaning | None:
    """What a packet of another protocol than TCP is; None: unknown."""
    payload = packet.payload
    if packet.protocol == "udp" and packet.ports:
        if set(packet.ports) == {_IKE}:
            return Meaning.IKE if is_ike(payload) else None
        if set(packet.ports) == {_NATT}:
            # RFC 3948: four zero bytes where ESP has its SPI; or one byte that keeps NAT awake
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
        if is_error(payload, version, target):
            return Meaning.ICMP_ERROR
        if version == 6 and is_neighbours(payload):
            return Meaning.NEIGHBOURS
        return Meaning.ICMP if is_ping(payload, version) else None
    return None


def packet_filter(meaning: Meaning | None) -> Filter:
    """What takes out of packets with this meaning what is in the clear by design."""
    made: dict[Meaning | None, type[Esp | Ike | Quotes | Everything]] = {
        Meaning.ESP: Esp,
        Meaning.IKE: Ike,
        Meaning.ICMP_ERROR: Quotes,
        Meaning.ARP: Everything,
        Meaning.NEIGHBOURS: Everything,
        Meaning.ICMP: Everything,
    }
    return made[meaning]() if meaning in made else Nothing()


def stream_meaning(beginning: bytes, answers_sealed: bool) -> Meaning | None:
    """What a TCP direction is by its first 8 bytes or more; `answers_sealed`: the other one is a sealed stream,
    forward."""
    if begins_sealed(beginning) or answers_sealed:
        return Meaning.PLUGIN
    return Meaning.SSH if begins_ssh(beginning) else None
