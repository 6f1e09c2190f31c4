"""The existing way, measured: a guest moved from host-a to host-b by `xl migrate`, through IPsec if it is on.

As in the paper, its stream goes through one TCP connection that nobody else seals: socat takes the place of ssh,
which would encrypt everything a second time. xl moves no disks, it only demands that they are there. So the guest's
disk is copied beforehand, with tar through such a connection, and the guest has it read-only from its start to its
arrival: what was copied is what it finds. How long that took is told apart from how long `xl migrate` took.
Everything that is measured is taken from outside: the time around the command, the bytes that the router's devices
counted, and the guest's own ticks for its downtime (the longest gap between two of them, less the second there
always is). It tells the time by its host's clock, so the clocks are set before, and compared after.

A guest that was on the hosts before is ended first, and the one that was moved at the end.

Without IPsec it is `plain`: what IPsec is compared with, and what the wire check has to find everything in.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab.errors import CheckError, CommandError
from lab.hosts.guest import trace
from lab.hosts.lab import Lab
from lab.hosts.machine.accel import QEMU, accelerator
from lab.hosts.provider.base import Node, Say
from lab.hosts.role import clock
from lab.hosts.topology import HOST_A, HOST_B, ROUTER, SITE_A, address
from lab.measure.results import Result
from lab.progress import Moving
from netem.remote_command import Done

GUEST = "g1"
CONFIG = f"/srv/guests/{GUEST}.cfg"
DISK = f"/srv/guests/{GUEST}.img"
#: What a guest says where it was started, and where it was moved to: xenconsoled names the log after the
#: domain as it first was.
_LOGS = {
    HOST_A.name: f"/var/log/xen/console/guest-{GUEST}.log",
    HOST_B.name: f"/var/log/xen/console/guest-{GUEST}--incoming.log",
}
#: Ticks that are waited for before and after, so that the guest is known to run.
_TICKS = 5
_PORT = 7000
_SOCAT = "socat -b 262144"  # bytes at a time; by itself 8192, which costs CPU time
#: One that nobody calls ends by itself.
_LISTEN = f"TCP-LISTEN:{_PORT},reuseaddr,accept-timeout=300"
#: Seconds that the end of watching may take.
_LAST_WORDS = 20.0
#: Seconds of a quiet machine.
START, COPY, MIGRATE = 300.0, 1800.0, 1800.0


@dataclass(frozen=True)
class Moved:
    """Seconds and bytes; `memory` and `disk` as `sizes` tells them. `clocks_apart`: the target's clock before the
    source's, what `downtime` may have too much; `router_bytes`: IP packets with their Ethernet headers, both
    directions, while xl ran."""

    disk_seconds: float
    disk_router_bytes: int
    seconds: float
    router_bytes: int
    downtime: float
    clocks_apart: float
    ticks: int
    said: str
    memory: dict[str, int]
    disk: dict[str, int]


def existing(lab: Lab, say: Say, kind: str = "existing") -> Result:
    """Measure it once in the lab as it is (which must be up); a result of that `kind`. Raises CommandError,
    CheckError."""
    result = Result(kind, lab.spec)
    source, target, router = lab.node(HOST_A.name), lab.node(HOST_B.name), lab.node(ROUTER.name)
    result.versions = versions(lab)
    for node in (source, target):
        destroy(node)
    try:
        with watching((source, target), say):
            result.figures = vars(_move(source, target, router, say))
    finally:
        for node in (source, target):
            destroy(node)
    return result


def _move(source: Node, target: Node, router: Node, say: Say) -> Moved:
    for node in (source, target):
        clock.set_right(node)
    begun = {node.name: log_size(node) for node in (source, target)}
    say(f"{source.name}: starting {GUEST}")
    disk = f'disk=["format=raw,vdev=xvda,access=ro,target={DISK}"]'
    source.check(["xl", "create", "-q", CONFIG, disk], timeout=START)
    await_ticks(source, begun[source.name], say)
    guest = sizes(source)
    say(f"{source.name}: copying the disk of {GUEST} to {target.name}")
    target.check(["rm", "-f", DISK])
    start, bytes_start = time.monotonic(), router_bytes(router)
    _copy(source, target)
    disk_seconds, disk_bytes = time.monotonic() - start, router_bytes(router) - bytes_start
    say(f"{source.name}: xl migrate {GUEST} {target.name}")
    start, bytes_start = time.monotonic(), router_bytes(router)
    done = _migrate(source, target)
    seconds, moved_bytes = time.monotonic() - start, router_bytes(router) - bytes_start
    if done.code:
        raise CommandError(f"{source.name}: xl migrate failed ({done.code}): {done.said[-400:]}")
    check_where(source, target)
    after = await_ticks(target, begun[target.name], say)
    seen = trace.parse("".join((log(source, begun[source.name]), after)))
    if seen.corrupt:
        raise CheckError(f"{GUEST} found corruption: {seen.corrupt[0]}")
    apart = clock.difference(source, target)
    say(f"the hosts' clocks: {apart.ahead:+.3f} s apart, known to {apart.uncertain:.3f} s")
    return Moved(
        disk_seconds=round(disk_seconds, 3),
        disk_router_bytes=disk_bytes,
        seconds=round(seconds, 3),
        router_bytes=moved_bytes,
        downtime=round(seen.downtime, 3),
        clocks_apart=round(apart.ahead, 3),
        ticks=len(seen.ticks),
        said=done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "",
        **guest,
    )


def _copy(source: Node, target: Node) -> None:
    folder, name = DISK.rsplit("/", 1)
    with _serving(target, f"{_SOCAT} -u {_LISTEN} - | tar -xS -C {folder}") as there:
        source.check(["sh", "-c", f"tar -cS -C {folder} {name} | {_SOCAT} -u - {_connect(target)}"], timeout=COPY)
        if there.wait(COPY):  # it has all of it, and writes the rest
            raise CommandError(f"{target.name}: tar failed ({there.returncode})")


def _migrate(source: Node, target: Node) -> Done:
    with _serving(target, f"{_SOCAT} -t 600 {_LISTEN} EXEC:'xl migrate-receive'"):
        words = ["xl", "migrate", "-s", f"{_SOCAT} - {_connect(target)} #"]  # what xl appends is a comment
        return source.run([*words, GUEST, target.name], timeout=MIGRATE)


def _connect(target: Node) -> str:
    return f"TCP:{address(target.name)}:{_PORT},retry=30,interval=1"


@contextmanager
def _serving(node: Node, script: str) -> Iterator[subprocess.Popen[bytes]]:
    """`script` runs on `node` meanwhile."""
    nowhere = subprocess.DEVNULL
    child = node.popen(["sh", "-c", script], stdin=nowhere, stdout=nowhere, stderr=nowhere)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


@contextmanager
def watching(nodes: Iterable[Node], say: Say) -> Iterator[None]:
    """Show what the guest says on each of `nodes`, as it says it."""

    def follow(node: Node, tail: subprocess.Popen[bytes]) -> None:
        assert tail.stdout is not None
        for line in tail.stdout:
            say(Moving(node.name, f"{GUEST} says: {line.decode(errors='replace').strip()}"))

    tails = []
    for node in nodes:
        # Its end is the end of its standard input: ending ssh alone would leave it running there.
        words = ["sh", "-c", f"tail -n 0 -F {_LOGS[node.name]} 2>/dev/null & cat >/dev/null; kill $!"]
        tail = node.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        threading.Thread(target=follow, args=(node, tail), daemon=True).start()
        tails.append((node, tail))
    try:
        yield
    finally:
        for node, tail in tails:
            assert tail.stdin is not None
            tail.stdin.close()
            try:
                tail.wait(_LAST_WORDS)
            except subprocess.TimeoutExpired:
                tail.kill()
                tail.wait()
            say(Moving(node.name, ""))


def destroy(node: Node) -> None:
    """End the guest on `node`, under whatever name a migration left it."""
    for name in (GUEST, f"{GUEST}--incoming", f"{GUEST}--migratedaway"):
        node.run(["sh", "-c", 'xl domid "$1" >/dev/null 2>&1 && xl destroy "$1"', "sh", name], timeout=120)


def domains(node: Node) -> list[str]:
    """The names of the domains on `node`, dom0 left out. Raises CommandError."""
    lines = node.check(["xl", "list"], timeout=120).splitlines()[1:]
    return [line.split()[0] for line in lines if line.split() and line.split()[0] != "Domain-0"]


def sizes(node: Node) -> dict[str, dict[str, int]]:
    """Bytes of the guest's memory and disk on `node`, and of what of the disk is no hole. Raises CommandError."""
    memory = node.check(["sed", "-n", "s/^memory *= *//p", CONFIG])
    size, blocks, block = (int(word) for word in node.check(["stat", "-c", "%s %b %B", DISK]).split())
    return {"memory": {"size": int(memory) << 20}, "disk": {"size": size, "data": blocks * block}}


def versions(lab: Lab) -> dict[str, str]:
    """What the figures depend on, by name."""
    node = lab.node(HOST_A.name)
    found = {
        "xen": node.check(["sh", "-c", "xl info xen_version"], timeout=120).strip(),
        "dom0": node.check(["uname", "-r"]).strip(),
    }
    swan = node.run(["swanctl", "--version"])
    if not swan.code:
        found["strongswan"] = swan.stdout.strip().split("\n")[0]
    if lab.spec.provider == "qemu":
        found["accel"] = accelerator().value
    try:
        said = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False)
        found["qemu"] = said.stdout.split("\n")[0].removeprefix("QEMU emulator version ").strip()
    except OSError:
        pass  # a lab that needs none
    return found


def check_where(source: Node, target: Node) -> None:
    """Raises CheckError unless the guest is on `target` alone, CommandError."""
    here, there = domains(source), domains(target)
    if GUEST in here or GUEST not in there:
        raise CheckError(f"after the migration {source.name} has {here or 'no guest'}, {target.name} {there}")


def log_size(node: Node) -> int:
    """Bytes that the guest has said on `node` so far."""
    return int(node.check(["sh", "-c", f"stat -c %s {_LOGS[node.name]} 2>/dev/null || echo 0"]).strip())


def log(node: Node, start: int) -> str:
    """What the guest has said on `node` since byte `start`."""
    return node.run(["tail", "-c", f"+{start + 1}", _LOGS[node.name]], timeout=120).stdout


def await_ticks(node: Node, start: int, say: Say) -> str:
    """The guest's console on `node` since byte `start`, when it has ticked there. Raises CommandError."""
    script = f"""
        for try in $(seq {START:.0f}); do
            [ "$(tail -c +$(($1 + 1)) {_LOGS[node.name]} 2>/dev/null | grep -c ' tick ')" -lt $2 ] || exit 0
            sleep 1
        done
        exit 1"""
    done = node.run(["sh", "-c", script, "sh", str(start), str(_TICKS)], timeout=START + 60)
    text = log(node, start)
    if done.code:
        raise CommandError(f"{GUEST} does not tick on {node.name}; its console ends: {text.strip()[-300:]!r}")
    say(f"{node.name}: {GUEST} ticks")
    return text


def router_bytes(router: Node) -> int:
    """What the router's device towards host-a has carried, both ways."""
    links = json.loads(router.check(["ip", "-j", "-s", "link"]))
    mac = ROUTER.nic(SITE_A).mac
    counts = next(link["stats64"] for link in links if link.get("address") == mac)
    return int(counts["rx"]["bytes"]) + int(counts["tx"]["bytes"])
