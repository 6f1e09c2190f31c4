"""Makes strongSwan's configuration files and parses the output of swanctl. Pure.

There are two kinds of ESP. "transport": by the kernel, directly between the hosts' addresses; a trap policy is in
the kernel before the SA is. "tunnel": by charon itself (kernel-libipsec), in UDP between the endpoints of an
emulated link. When charon ends, its policies and routes are removed and packets would leave in the clear, so there
is a guard that stays. Sources: swanctl.conf(5), strongswan.conf(5), vici's list-sa message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.hosts import topology
from lab.hosts.spec import Auth, Suite

CHARON = "/usr/lib/ipsec/charon"
NAME = "xenlab"  # of the connection, and of its one child
#: Files on a host. AppArmor lets charon and swanctl read these, and few others.
CONNECTION = f"/etc/swanctl/{NAME}.conf"
CERTIFICATE = f"/etc/swanctl/x509/{NAME}.pem"
AUTHORITY = f"/etc/swanctl/x509ca/{NAME}.pem"
KEY = f"/etc/swanctl/private/{NAME}.pem"
DAEMON = "/run/charon.xenlab.conf"
LOG = "/run/charon.log"
FILES = (CONNECTION, CERTIFICATE, AUTHORITY, KEY, DAEMON)

#: The ends of the link in a lab of namespaces: a tunnel in user space cannot have the addresses of what it carries.
ENDPOINTS = {"host-a": "10.71.0.1", "host-b": "10.71.0.2"}

_IKE = "aes128-sha256-ecp256"
_INTEGRITY = {Suite.PAPER: ("AES_CBC", "HMAC_SHA1_96"), Suite.TODAY: ("AES_GCM_16", None)}


class SwanError(ValueError):
    """The output of swanctl is malformed or unexpected."""


@dataclass(frozen=True)
class End:
    """A host: IPsec protects `address`, and IKE and ESP use `endpoint`."""

    name: str
    address: str
    endpoint: str


def ends(esp: str) -> tuple[End, End]:
    """Return host-a and host-b for ESP of this kind ("transport", "tunnel")."""
    a, b = (
        End(host.name, host.nics[0].address, host.nics[0].address if esp == "transport" else ENDPOINTS[host.name])
        for host in topology.HOSTS
    )
    return a, b


def connection(suite: Suite, auth: Auth, esp: str, here: End, there: End, secret: str | None) -> str:
    """Return the swanctl.conf of host `here`. `secret`: the pre-shared key, "0x" and hexadecimal digits."""
    if auth is Auth.PSK:
        local, remote = "auth = psk", "auth = psk"
        secrets = {"secrets": {f"ike-{NAME}": f"id-1 = {here.name}\nid-2 = {there.name}\nsecret = {secret}"}}
    else:
        local, remote = f"auth = pubkey\ncerts = {NAME}.pem", f"auth = pubkey\ncacerts = {NAME}.pem"
        secrets = {}
    child = [
        f"esp_proposals = {suite.value}",
        f"mode = {esp}",
        f"local_ts = {here.address}/32",
        f"remote_ts = {there.address}/32",
        # User-space ESP has no trap; there the blackhole route stops packets that would leave too early.
        f"start_action = {'trap' if esp == 'transport' else 'none'}",
    ]
    body = [
        "version = 2",
        f"proposals = {_IKE}",
        f"local_addrs = {here.endpoint}",
        f"remote_addrs = {there.endpoint}",
        "mobike = no",
        _section("local", f"{local}\nid = {here.name}"),
        _section("remote", f"{remote}\nid = {there.name}"),
        _section("children", _section(NAME, "\n".join(child))),
    ]
    text = _section("connections", _section(NAME, "\n".join(body)))
    for heading, inner in secrets.items():
        text += "\n" + _section(heading, "\n".join(_section(key, value) for key, value in inner.items()))
    return text + "\n"


def daemon() -> str:
    """Return the strongswan.conf of a host whose ESP is in user space."""
    plugins = "random nonce openssl pem x509 pubkey kdf hmac sha1 sha2 aes aesni gcm constraints"
    kernel = "kernel-libipsec kernel-netlink socket-default vici"
    return _section("charon", f"load = {plugins} {kernel}\ninstall_virtual_ip = no") + "\n"


def plain_route(here: str, there: str, device: str) -> list[str]:
    """Return the arguments of `ip` that let host `here` reach `there` in the clear over `device`."""
    return ["route", "replace", _site(there), "dev", device, "src", topology.address(here)]


def guard(esp: str, here: End, there: End) -> list[str]:
    """Return the arguments of `ip` that stop packets in the clear from `here` to `there`, whether charon runs or
    not.

    "tunnel": the plain route becomes a blackhole; the tunnel's own route is in table 220, which comes first.
    "transport": a blocking policy with a lower priority than charon's own. Its source is the whole site, because
    policies with the same selectors replace each other. IKE's sockets are exempt.
    """
    if esp == "tunnel":
        return ["route", "replace", "blackhole", _site(there.name)]
    return [
        *("xfrm", "policy", "update", "src", _site(here.name), "dst", f"{there.address}/32"),
        *("dir", "out", "action", "block", "priority", "4000000000"),
    ]


def _site(name: str) -> str:
    return topology.NETWORKS[topology.machine(name).nics[0].network]


def _section(name: str, inside: str) -> str:
    return f"{name} {{\n" + "\n".join(f"    {line}" for line in inside.splitlines()) + "\n}"


@dataclass(frozen=True)
class Sa:
    """A child SA as `swanctl --list-sas --raw` shows it. `integrity` is None if the cipher includes it."""

    state: str
    mode: str
    cipher: str
    integrity: str | None
    bytes_in: int
    bytes_out: int

    def fits(self, suite: Suite, esp: str) -> bool:
        """Return whether the SA is up and as requested."""
        wanted = (*_INTEGRITY[suite], esp.upper())
        return self.state == "INSTALLED" and (self.cipher, self.integrity, self.mode) == wanted


def parse_sas(printed: str) -> list[Sa]:
    """Return the child SAs in the output of `swanctl --list-sas --raw`. Raises SwanError."""
    found = []
    for line in printed.splitlines():
        if not line.startswith("list-sa event "):
            continue
        for ike in _mapping(_parse(line.removeprefix("list-sa event "))).values():
            for child in _mapping(_mapping(ike).get("child-sas", {})).values():
                found.append(_child(_mapping(child)))
    return found


def _child(values: Mapping[str, Any]) -> Sa:
    if values.get("encr-alg") and values.get("encr-keysize") != "128":
        raise SwanError(f"AES has {values.get('encr-keysize')} bits instead of 128")
    counts = [values.get(key, "0") for key in ("bytes-in", "bytes-out")]
    if not all(count.isdecimal() for count in counts):
        raise SwanError(f"{counts} are not numbers of bytes")
    return Sa(
        state=values.get("state", ""),
        mode=values.get("mode", ""),
        cipher=values.get("encr-alg", ""),
        integrity=values.get("integ-alg"),
        bytes_in=int(counts[0]),
        bytes_out=int(counts[1]),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SwanError(f"{value!r} is not a section")
    return value


_TOKEN = re.compile(r"\s*(?:([^\s{}\[\]=]+)(=?)([^\s{}\[\]]*)|([{}\[\]]))")


def _parse(text: str) -> dict[str, Any]:
    """Parse vici's format {key=value key {section} key=[list]}, from its opening brace."""
    tokens: list[tuple[str, ...]] = [match.groups("") for match in _TOKEN.finditer(text)][::-1]
    if not tokens or tokens.pop()[3] != "{":
        raise SwanError(f"{text[:40]!r} is not a section")
    try:
        return _inside(tokens)
    except IndexError:
        raise SwanError(f"{text[-40:]!r} ends too early") from None


def _inside(tokens: list[tuple[str, ...]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    while True:
        word, equals, value, bracket = tokens.pop()
        if bracket == "}":
            return values
        if not word:
            raise SwanError(f"{bracket!r} in place of a name")
        following = tokens[-1][3]
        if not equals and following == "{":
            tokens.pop()
            values[word] = _inside(tokens)
        elif equals and not value and following == "[":
            tokens.pop()
            items = values[word] = []
            while (token := tokens.pop())[3] != "]":
                items.append(token[0])
        else:
            values[word] = value
