"""What a packet or a stream is, by its protocol, its port and its first bytes; and what of that a capture may hold.

A port alone explains nothing: on ssh's there has to be ssh, on the plugin's its sealed stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lab.verify.clear import begins_sealed, begins_ssh
from lab.verify.flows import Packet
from xenplugin.config import Config

SSH_PORT = 22
_PLUGIN_PORTS = Config().port_range
_IKE, _NATT = 500, 4500
_ICMP_ERRORS = (3, 11, 12)
_ICMP6_ERRORS = range(1, 5)
_NEIGHBOURS = (*range(130, 138), 143)  # routers, neighbours, and who listens to what


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
#: What is in the clear by design, all of it.
OPEN = _LINK | {Meaning.IKE, Meaning.ICMP}


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
            return Meaning.IKE
        if set(packet.ports) == {_NATT}:
            # RFC 3948: four zero bytes where ESP has its SPI; or one byte that keeps NAT awake
            return Meaning.IKE if payload[:4] == bytes(4) or payload == b"\xff" else Meaning.ESP
    elif packet.protocol == "esp":
        return Meaning.ESP
    elif packet.protocol == "arp":
        return Meaning.ARP
    elif packet.protocol == "icmp":
        return Meaning.ICMP_ERROR if payload[:1] and payload[0] in _ICMP_ERRORS else Meaning.ICMP
    elif packet.protocol == "icmp6":
        if payload[:1] and payload[0] in _NEIGHBOURS:
            return Meaning.NEIGHBOURS
        return Meaning.ICMP_ERROR if payload[:1] and payload[0] in _ICMP6_ERRORS else Meaning.ICMP
    return None


def stream_meaning(beginning: bytes, answers_sealed: bool) -> Meaning | None:
    """What a TCP direction is by its first 8 bytes or more; `answers_sealed`: the other one is a sealed stream,
    forward."""
    if begins_sealed(beginning) or answers_sealed:
        return Meaning.PLUGIN
    return Meaning.SSH if begins_ssh(beginning) else None
