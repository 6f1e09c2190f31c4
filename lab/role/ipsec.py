"""IPsec between the hosts, on or off, and seen to be so.

Turning it on: what leads out in the clear is stopped first where only a route can (user-space ESP), then charon
starts on both hosts, traps are set, the SAs negotiated. Turning it off goes the other way round. At the end SAs
are compared with what was asked, and a capture at the router judges (swan_proof). Everything is done by commands
on the nodes, the same on a Xen host over ssh and in a namespace; fresh keys each time, in files of mode 600.
"""

from __future__ import annotations

import shlex

from lab.errors import CheckError, CommandError, MissingError
from lab.provider.base import Node, Provider
from lab.role import swan, swan_keys
from lab.role.swan import End
from lab.role.swan_proof import prove
from lab.spec import Auth, Spec, Suite
from netem.emulator.tun import NAME as LINK

_PACKAGES = "strongswan-charon strongswan-swanctl libstrongswan-standard-plugins"
# Debian's unit would start charon again with a configuration of its own. Namespaces have no units.
_UNIT_OFF = "! command -v systemctl >/dev/null || systemctl disable -q --now strongswan-starter 2>/dev/null || :"
# Ours is who runs charon's program in this network namespace: the number alone may be another's by now.
_STOP = f"""
ours() {{
    [ "$(readlink /proc/$1/exe)" = {swan.CHARON} ] &&
        [ "$(readlink /proc/$1/ns/net)" = "$(readlink /proc/$$/ns/net)" ]
}}
if pid=$(cat /run/charon.pid 2>/dev/null) && ours $pid; then
    kill $pid
    for i in $(seq 300); do ours $pid || break; sleep 0.1; done
    ! ours $pid || kill -9 $pid
fi
rm -f /run/charon.pid /run/charon.vici {" ".join(swan.FILES)}
# what a charon that was killed left in the kernel
ip xfrm policy flush 2>/dev/null || :
ip xfrm state flush 2>/dev/null || :
"""
_START = f"""
{swan.CHARON} </dev/null >{swan.LOG} 2>&1 &
pid=$!
for i in $(seq 300); do
    [ ! -S /run/charon.vici ] || exit 0
    kill -0 $pid 2>/dev/null || break
    sleep 0.2
done
tail -n 5 {swan.LOG} >&2
exit 1
"""


def establish(provider: Provider, spec: Spec) -> dict[str, int]:
    """Makes IPsec between the hosts as `spec` says. Returns the packets by kind that the router saw (swan_proof).
    Raises MissingError, CommandError, CheckError."""
    esp = provider.abilities.esp
    a, b = swan.ends(esp)
    nodes = provider.nodes()
    both = [(nodes[a.name], a, b), (nodes[b.name], b, a)]
    if spec.ipsec is not Suite.OFF:
        _need([node for node, _, _ in both])
        if esp == "tunnel":
            for node, _, there in both:
                node.check(["ip", *swan.guard_route(there.name)])
    for node, _, _ in both:
        _withdraw(node, esp)
    if spec.ipsec is Suite.OFF:
        if esp == "tunnel":
            for node, here, there in both:
                node.check(["ip", *swan.plain_route(here.name, there.name, LINK)])
        return prove(provider, spec)
    secret = swan_keys.shared_secret() if spec.auth is Auth.PSK else None
    known = swan_keys.identities([a.name, b.name]) if spec.auth is Auth.CERT else {}
    for node, here, there in both:
        text = swan.connection(spec.ipsec, spec.auth, esp, here, there, secret)
        _configure(node, text, known.get(here.name), esp)
    _initiate(both[0][0])
    counts = prove(provider, spec)
    for node, here, _ in both:
        _check_sas(node, here, spec.ipsec, esp)
    return counts


def associations(node: Node) -> list[swan.Sa]:
    """The child SAs that `node` has. Raises CommandError, CheckError."""
    try:
        return swan.parse_sas(node.check(["swanctl", "--list-sas", "--raw"]))
    except swan.SwanError as error:
        raise CheckError(f"{node.name}: swanctl: {error}") from error


def _need(nodes: list[Node]) -> None:
    for node in nodes:
        if node.run(["sh", "-c", f"[ -x {swan.CHARON} ] && command -v swanctl"]).code:
            raise MissingError(f"{node.name} has no strongSwan", hint=f"apt install {_PACKAGES}")


def _withdraw(node: Node, esp: str) -> None:
    """Ends charon there and removes what we configured; nothing happens where there is nothing."""
    node.check(["sh", "-c", f"{_UNIT_OFF}\n{_STOP}" if esp == "transport" else _STOP], timeout=120)


def _configure(node: Node, connection: str, identity: swan_keys.Identity | None, esp: str) -> None:
    folders = sorted({path.rpartition("/")[0] for path in swan.FILES})
    node.check(["mkdir", "-p", *folders])
    node.put(connection.encode(), swan.CONNECTION, 0o600)
    if identity is not None:
        node.put(identity.authority, swan.AUTHORITY)
        node.put(identity.certificate, swan.CERTIFICATE)
        node.put(identity.key, swan.KEY, 0o600)
    start = _START
    if esp == "tunnel":
        node.put(swan.daemon().encode(), swan.DAEMON)
        start = f"export STRONGSWAN_CONF={shlex.quote(swan.DAEMON)}\n{_START}"
    node.check(["sh", "-c", start], timeout=120)
    node.check(["swanctl", "--load-all", "--noprompt", "--file", swan.CONNECTION], timeout=120)


def _initiate(node: Node) -> None:
    done = node.run(["swanctl", "--initiate", "--child", swan.NAME, "--timeout", "170"], timeout=180)
    if done.code:
        said = "\n".join([*done.stdout.strip().splitlines()[-5:], done.stderr.strip()])
        raise CommandError(f"{node.name}: IPsec does not come up: {said}")


def _check_sas(node: Node, here: End, suite: Suite, esp: str) -> None:
    found = associations(node)
    if not found or not all(sa.fits(suite, esp) for sa in found):
        raise CheckError(f"{here.name}: not the ESP that was asked for ({suite}, {esp}): {found or 'none'}")
    if not (sum(sa.bytes_in for sa in found) and sum(sa.bytes_out for sa in found)):
        raise CheckError(f"{here.name}: its SAs carry nothing: {found}")
