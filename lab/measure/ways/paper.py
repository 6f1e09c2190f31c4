"""The paper's ways for the disk of a stopped guest: compress, encrypt, copy and back, one tool after the other.

`paper-full` sends the whole disk uncompressed; `paper-partial`, on real Xen `paper`, compresses it first. The guest
does not run, so its memory is not moved.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace

from lab.measure.hosts import Hosts
from lab.measure.way import Family, Sent, Style, Way

_PARTIAL = Style("#b34d8f", "#d995bd", (6, 3), "v")


def _tools(compress: bool) -> Callable[[Hosts], None]:
    def run(hosts: Hosts) -> None:
        _share_key(hosts)
        with hosts.measured():
            hosts.steps(_steps(hosts, compress))
        hosts.check_disk()
        hosts.figures = replace(hosts.figures, downtime=hosts.figures.seconds)

    return run


def _share_key(hosts: Hosts) -> None:
    """Both hosts agree on a key before the measurement."""
    key = f"{hosts.here}/key"
    hosts.run(["sh", "-c", 'umask 077 && head -c 32 /dev/urandom | base64 >"$1"', "sh", key])
    hosts.run([*hosts.scp, key, f"{hosts.far}:{hosts.there}/key"])


def _steps(hosts: Hosts, compress: bool) -> dict[str, str]:
    """Return the shell commands by the names of their phases."""
    here, there = hosts.here, hosts.there
    packed = f"{here}/disk.gz" if compress else hosts.disk
    opened = f"{there}/disk.gz" if compress else hosts.arrived
    far = [*hosts.ssh, hosts.far]
    write = f"cp --sparse=always /dev/stdin {shlex.quote(hosts.arrived)}"
    steps = {
        "compress": f"gzip -c {shlex.quote(hosts.disk)} >{shlex.quote(packed)}",
        "encrypt": _openssl(f"{here}/key", packed, f"{here}/disk.enc"),
        "scp": shlex.join([*hosts.scp, f"{here}/disk.enc", f"{hosts.far}:{there}/disk.enc"]),
        "decrypt": shlex.join([*far, _openssl(f"{there}/key", f"{there}/disk.enc", opened, "-d")]),
        "decompress": shlex.join([*far, f"gunzip -c {shlex.quote(opened)} | {write}"]),
    }
    if not compress:
        del steps["compress"], steps["decompress"]
    return steps


def _openssl(key: str, source: str, target: str, *options: str) -> str:
    cipher = ["openssl", "enc", *options, "-aes-128-cbc", "-pbkdf2", "-pass", f"file:{key}"]
    return shlex.join([*cipher, "-in", source, "-out", target])


WAYS = (
    Way(
        "paper-full",
        "paper's full",
        Family.PAPER,
        40,
        Style("#b5560b", "#e9925a", (9, 3, 2, 3), "^"),
        _tools(compress=False),
        disk=True,
        memory=False,
        xen=False,
        holes=True,
    ),
    Way(
        "paper-partial",
        "paper's partial",
        Family.PAPER,
        50,
        _PARTIAL,
        _tools(compress=True),
        disk=True,
        memory=False,
        xen=False,
        sent=Sent(0, 0.5),
    ),
    Way(
        "paper",
        "paper's way for the disk",
        Family.PAPER,
        60,
        _PARTIAL,
        _tools(compress=True),
        disk=True,
        memory=False,
        native=False,
    ),
)
