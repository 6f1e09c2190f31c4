"""Turns IPsec between the hosts on or off, and checks the result.

Each host runs one script (swan_script), both in parallel. Then the SAs are negotiated and compared with what was
requested, and a capture at the router shows what really crosses it (swan_proof). The same code serves Xen hosts
over ssh, where each command takes a second, and namespaces. Keys are new each time, in files of mode 600.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lab.errors import CheckError, CommandError, MissingError
from lab.hosts.interface import Node, Provider
from lab.hosts.role import swan, swan_keys, swan_script
from lab.hosts.role.swan import End
from lab.hosts.role.swan_proof import prove
from lab.hosts.spec import Auth, Spec, Suite
from netem.emulator.tun import NAME as LINK

_PACKAGES = "strongswan-charon strongswan-swanctl libstrongswan-standard-plugins"
_SECONDS = 300.0
_INITIATE_SECONDS = 170.0


def establish(provider: Provider, spec: Spec) -> dict[str, int]:
    """Set up IPsec between the hosts as `spec` says. Returns how many packets of each kind crossed the router
    (swan_proof). Raises MissingError, CommandError, CheckError."""
    esp = provider.abilities.esp
    a, b = swan.ends(esp)
    nodes = provider.nodes()
    if spec.ipsec is Suite.OFF:
        _on_both(lambda here, there: _run(nodes[here.name], swan_script.off(esp, _plain(here, there))), a, b)
        return prove(provider, spec)
    secret = swan_keys.shared_secret() if spec.auth is Auth.PSK else None
    known = swan_keys.identities([a.name, b.name]) if spec.auth is Auth.CERT else {}

    def configure(here: End, there: End) -> None:
        connection = swan.connection(spec.ipsec, spec.auth, esp, here, there, secret)
        files = _files(esp, connection, known.get(here.name))
        _run(nodes[here.name], swan_script.on(esp, swan.guard(esp, here, there), files))

    _on_both(configure, a, b)
    _initiate(nodes[a.name])
    counts = prove(provider, spec)
    _on_both(lambda here, _: _check_sas(nodes[here.name], spec.ipsec, esp), a, b)
    return counts


def associations(node: Node) -> list[swan.Sa]:
    """Return the child SAs of `node`. Raises CommandError, CheckError."""
    try:
        return swan.parse_sas(node.check(["swanctl", "--list-sas", "--raw"]))
    except swan.SwanError as error:
        raise CheckError(f"{node.name}: swanctl: {error}") from error


def _on_both(work: Callable[[End, End], None], a: End, b: End) -> None:
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, a, b), pool.submit(work, b, a)]:
            done.result()


def _plain(here: End, there: End) -> list[str]:
    return swan.plain_route(here.name, there.name, LINK)


def _files(esp: str, connection: str, identity: swan_keys.Identity | None) -> dict[str, tuple[bytes, int]]:
    files = {swan.CONNECTION: (connection.encode(), 0o600)}
    if identity is not None:
        files[swan.AUTHORITY] = identity.authority, 0o644
        files[swan.CERTIFICATE] = identity.certificate, 0o644
        files[swan.KEY] = identity.key, 0o600
    if esp == "tunnel":
        files[swan.DAEMON] = swan.daemon().encode(), 0o644
    return files


def _run(node: Node, script: str) -> None:
    """Run `script` from standard input, so that no secret is on a command line. Because of `main`, the shell has
    read all of it before the first line runs."""
    done = node.run(["sh", "-s"], f"main() {{\n{script}\n}}\nmain\n", timeout=_SECONDS)
    if done.code == swan_script.NO_STRONGSWAN:
        raise MissingError(f"{node.name} has no strongSwan", hint=f"apt install {_PACKAGES}")
    if done.code:
        raise CommandError(f"{node.name}: IPsec: {done.error_text}")


def _initiate(node: Node) -> None:
    words = ["swanctl", "--initiate", "--child", swan.NAME, "--timeout", f"{_INITIATE_SECONDS:.0f}"]
    done = node.run(words, timeout=_INITIATE_SECONDS + 10)
    if done.code:
        output = "\n".join([*done.stdout.strip().splitlines()[-5:], done.stderr.strip()])
        raise CommandError(f"{node.name}: IPsec does not come up: {output}")


def _check_sas(node: Node, suite: Suite, esp: str) -> None:
    found = associations(node)
    if not found or not all(sa.fits(suite, esp) for sa in found):
        raise CheckError(f"{node.name}: its SAs are not as requested ({suite}, {esp}): {found or 'none'}")
    if not (sum(sa.bytes_in for sa in found) and sum(sa.bytes_out for sa in found)):
        raise CheckError(f"{node.name}: its SAs carry no data: {found}")
