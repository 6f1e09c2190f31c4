"""Which packets a capture may contain: the recognised protocols on their ports, and other kinds by name."""

from __future__ import annotations

from dataclasses import dataclass

from lab.verify.content.meaning import Meaning
from xenplugin.config import Config

SSH_PORT = 22
EXTENDED = "ipv6-options"  # the kind of packets with more headers of IPv6 than they need, whatever is in them
_PLUGIN_PORTS = Config().port_range


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
