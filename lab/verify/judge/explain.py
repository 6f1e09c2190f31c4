"""Which packets a capture may contain: the recognised protocols on their ports, and other kinds by name."""

from __future__ import annotations

from dataclasses import dataclass

from lab.verify.content.meaning import Meaning
from xenplugin.config import Config

SSH_PORT = 22
EXTENDED = "ipv6-options"  # the kind of all packets with more IPv6 headers than needed, whatever their content
_PLUGIN_PORTS = Config().port_range

#: Packets that keep a link working.
_LINK = frozenset({Meaning.ARP, Meaning.NEIGHBOURS, Meaning.ICMP_ERROR})


@dataclass(frozen=True)
class Expect:
    """What a capture may contain: packets with these `meanings`, and those of these `kinds` ("udp/5353"), whatever
    their content. `ports`: ports of the plugin."""

    meanings: frozenset[Meaning]
    ports: range = _PLUGIN_PORTS
    kinds: frozenset[str] = frozenset()

    def explains(self, kind: str, port: int | None, meaning: Meaning | None) -> bool:
        """Return whether a packet of this kind, service port and meaning is expected."""
        if kind in self.kinds:
            return True
        if kind == EXTENDED:
            return False
        if meaning is Meaning.SSH and port != SSH_PORT:
            return False
        if meaning is Meaning.PLUGIN and port not in self.ports:
            return False
        return meaning in self.meanings

    def explains_silent(self, kind: str, port: int | None) -> bool:
        """Return whether a TCP connection without data is expected. Only its port can tell."""
        return any(self.explains(kind, port, each) for each in (Meaning.SSH, Meaning.PLUGIN))


PLAIN = "plain"  # the capture is of a transfer without protection: every packet is accepted
EXPECTED = {
    "esp": _LINK | {Meaning.IKE, Meaning.ESP},
    "plugin": _LINK | {Meaning.SSH, Meaning.PLUGIN, Meaning.ICMP},
    "any": frozenset(Meaning),
}
