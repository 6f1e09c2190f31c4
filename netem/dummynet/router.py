"""The two sides of a FreeBSD router, and the numbers in its firewall that netem takes."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from netem.errors import BackendError

#: The rule set of ipfw that has netem's rules and no others, so that they can be removed together.
SET = 27
#: The rule that accepts everything, where netem itself loads the firewall.
ALLOW_RULE = 65000


@dataclass(frozen=True)
class Router:
    """The two sides of a router, and numbers that are free on it.

    net_a, net_b: address or network of each side (10.1.0.0/24), both IPv4 or both IPv6.
    pipe, rule: the first of two numbers each.

    Raises BackendError for values that ipfw does not take.
    """

    net_a: str
    net_b: str
    pipe: int = 2701
    rule: int = 100

    def __post_init__(self) -> None:
        if len({_network(net).version for net in (self.net_a, self.net_b)}) != 1:
            raise BackendError(f"{self.net_a} and {self.net_b} are not of the same IP version")
        if not 1 <= self.pipe < 65534:
            raise BackendError(f"pipe {self.pipe}: numbers go from 1 to 65533")
        if not 1 <= self.rule < ALLOW_RULE - 1:
            raise BackendError(f"rule {self.rule}: numbers go from 1 to {ALLOW_RULE - 2}")

    @property
    def version(self) -> int:
        """4 or 6."""
        return _network(self.net_a).version

    @property
    def pipes(self) -> tuple[int, int]:
        """The pipes' numbers: a to b, b to a."""
        return self.pipe, self.pipe + 1

    @property
    def rules(self) -> tuple[int, int]:
        """The rules' numbers: a to b, b to a."""
        return self.rule, self.rule + 1


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise BackendError(f"{text!r} is not a network: {error}") from None
