"""Proves by a capture at the router that only ESP and IKE cross it, or only plain packets where IPsec is off.

The same check judges both cases, so it is known to be able to fail.
"""

from __future__ import annotations

import ipaddress
import shlex
import tempfile
from collections import Counter
from pathlib import Path

from lab.errors import CheckError
from lab.hosts.interface import Node, Provider
from lab.hosts.role.capture import record_all
from lab.hosts.role.swan import ends
from lab.hosts.spec import Spec, Suite
from lab.verify.capture import reading

_ETHERNET, _IPV4 = 1, b"\x08\x00"
_ESP, _UDP = 50, 17
_IKE, _IKE_NATT = 500, 4500


def count(path: Path, a: set[str], b: set[str]) -> dict[str, int]:
    """Return how many packets of each kind the capture `path` has: "esp", "ike" and "plain" between an address of
    `a` and one of `b`, "other" for the rest. Raises lab.verify.capture.reading.CaptureError."""
    kinds = Counter[str](esp=0, ike=0, plain=0, other=0)
    for captured in reading.read(path):
        kinds[_kind(captured, a, b)] += 1
    return dict(kinds)


def _kind(captured: reading.Captured, a: set[str], b: set[str]) -> str:
    data = captured.data
    if captured.link == _ETHERNET:
        if data[12:14] != _IPV4:
            return "other"
        data = data[14:]
    if len(data) < 20 or data[0] >> 4 != 4:
        return "other"
    source, target = (str(ipaddress.IPv4Address(data[at : at + 4])) for at in (12, 16))
    if not ((source in a and target in b) or (source in b and target in a)):
        return "other"
    if data[9] == _ESP:  # fragments, too
        return "esp"
    inside = data[(data[0] & 15) * 4 :]
    if data[9] == _UDP and not int.from_bytes(data[6:8], "big") & 0x1FFF:
        ports = {int.from_bytes(inside[at : at + 2], "big") for at in (0, 2)}
        if ports == {_IKE}:
            return "ike"
        # RFC 3948: IKE has four zero bytes where ESP has its SPI; a keep-alive for NAT is one byte.
        if ports == {_IKE_NATT}:
            return "ike" if inside[8:12] == bytes(4) or inside[8:] == b"\xff" else "esp"
    return "plain"


def prove(provider: Provider, spec: Spec) -> dict[str, int]:
    """Send a few packets between the hosts and return what crosses the router, as `count` does.

    Raises CheckError unless that is only ESP and IKE with IPsec on, or plain packets and no ESP with IPsec off;
    CommandError.
    """
    a, b = ends(provider.abilities.esp)
    nodes = provider.nodes()

    def traffic() -> None:
        for here, there in ((a, b), (b, a)):
            exchange(nodes[here.name], there.address)

    with tempfile.TemporaryDirectory(prefix="xenlab-") as folder:
        path = Path(folder, "proof.pcap")
        record_all(provider, path, traffic)
        try:
            counts = count(path, {a.address, a.endpoint}, {b.address, b.endpoint})
        except reading.CaptureError as error:
            raise CheckError(f"what crosses the router cannot be judged: {error}") from error
    if spec.ipsec is Suite.OFF:
        if counts["esp"] or not counts["plain"]:
            raise CheckError(f"IPsec is off, but the router did not see plain packets only: {counts}")
    elif counts["plain"]:
        raise CheckError(f"packets in the clear between the hosts, with IPsec on: {counts}")
    elif not counts["esp"]:
        raise CheckError(f"no ESP crossed the router: {counts}")
    return counts


def exchange(node: Node, address: str) -> None:
    """Send small and large pings from `node` to `address`. Raises CheckError when no answer returns."""
    words = ["-n", "-q", "-c", "3", "-i", "0.05", "-W", "20"]
    script = " && ".join(shlex.join(["ping", *words, "-s", size, address]) for size in ("56", "1200"))
    done = node.run(["sh", "-c", script], timeout=120)
    if done.code:
        raise CheckError(f"{node.name} does not reach {address}: {done.error_text}")
