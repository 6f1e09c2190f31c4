"""What a packet or a stream is, by its protocol, its port and its first bytes; and what of that a capture may hold.

A port alone explains nothing: on ssh's has to be ssh, on the plugin's its sealed stream, on IKE's its messages.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from xenplugin.config import Config

SSH_PORT = 22
EXTENDED = "ipv6-options"  # the kind of packets with more headers of IPv6 than they need, whatever is in them
_PLUGIN_PORTS = Config().port_range
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


#: What keeps a link going.
_LINK = frozenset({Meaning.ARP, Meaning.NEIGHBOURS, Meaning.ICMP_ERROR})


@dataclass(frozen=True)
class Expect:
    """What a capture may hold: `meanings`, and `kinds` ("udp/5353") beside them. `ports`: where the plugin
    listens."""

    meanings: frozenset[Meaning]
    ports: range = _PLUGIN_PORTS
    kinds: frozenset[str] = frozenset()

    def explains(self, kind: str, port: int | None, meaning: Meaning | None) -> bool:
        """Whether a packet of this kind, at the service's port, with this meaning, is to be there."""
        if kind in self.kinds:
            return True
        if kind == EXTENDED:
            return False
        if meaning is Meaning.SSH and port != SSH_PORT:
            return False
        if meaning is Meaning.PLUGIN and port not in self.ports:
            return False
        return meaning in self.meanings

    def silent(self, kind: str, port: int | None) -> bool:
        """Whether a TCP connection that carried nothing may be there: its port is all that it has."""
        return any(self.explains(kind, port, each) for each in (Meaning.SSH, Meaning.PLUGIN))


PLAIN = "plain"  # of a transfer without protection: anything may be there
EXPECTED = {
    "esp": _LINK | {Meaning.IKE, Meaning.ESP},
    "plugin": _LINK | {Meaning.SSH, Meaning.PLUGIN, Meaning.ICMP},
    "any": frozenset(Meaning),
}


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
