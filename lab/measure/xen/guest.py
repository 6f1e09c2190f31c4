"""The guest g1 on two real Xen hosts: start, watch and end it, and read what its console says.

The guest prints a tick each second. Ticks show that it runs, and where; the longest gap between two of them, less
the second there always is, is its downtime. It takes its time from the host's clock, so the hosts' clocks are set
before a run, and their difference is measured after it.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from lab.errors import CheckError, CommandError
from lab.hosts.guest import trace
from lab.hosts.guest.trace import Trace
from lab.hosts.interface import Node, Say
from lab.hosts.lifecycle.lab import Lab
from lab.hosts.machine.accel import QEMU, accelerator
from lab.hosts.topology import HOST_A, HOST_B, ROUTER, SITE_A
from lab.measure.results import Disk, Memory
from lab.progress import Moving

GUEST = "g1"
CONFIG = f"/srv/guests/{GUEST}.cfg"
DISK = f"/srv/guests/{GUEST}.img"
#: Console logs on the host where the guest is started and where it arrives: xenconsoled names a log after the
#: domain as it is called when it is created.
_LOGS = {
    HOST_A.name: f"/var/log/xen/console/guest-{GUEST}.log",
    HOST_B.name: f"/var/log/xen/console/guest-{GUEST}--incoming.log",
}
#: Ticks that are waited for before and after, so that the guest is known to run.
_TICKS = 5
_START = 300.0  # seconds of a quiet machine
_TAIL_ENDS = 20.0  # seconds


class Console:
    """What the guest prints on both hosts from now on."""

    def __init__(self, source: Node, target: Node, say: Say) -> None:
        self._source, self._target, self._say = source, target, say
        self._begin = {node.name: _log_size(node) for node in (source, target)}

    def await_start(self) -> None:
        """Wait until the guest ticks where it was started. Raises CommandError."""
        self._await_ticks(self._source)

    def await_arrival(self) -> Trace:
        """Wait until it ticks where it was moved to, and return all that it printed.

        Raises CommandError, CheckError.
        """
        after = self._await_ticks(self._target)
        seen = trace.parse("".join((_log(self._source, self._begin[self._source.name]), after)))
        if seen.corrupt:
            raise CheckError(f"{GUEST} found corrupt data: {seen.corrupt[0]}")
        return seen

    def _await_ticks(self, node: Node) -> str:
        begin = self._begin[node.name]
        script = f"""
            for try in $(seq {_START:.0f}); do
                [ "$(tail -c +$(($1 + 1)) {_LOGS[node.name]} 2>/dev/null | grep -c ' tick ')" -lt $2 ] || exit 0
                sleep 1
            done
            exit 1"""
        done = node.run(["sh", "-c", script, "sh", str(begin), str(_TICKS)], timeout=_START + 60)
        text = _log(node, begin)
        if done.code:
            raise CommandError(f"{GUEST} does not tick on {node.name}; its console ends: {text.strip()[-300:]!r}")
        self._say(f"{node.name}: {GUEST} ticks")
        return text


def _log_size(node: Node) -> int:
    """Return the size of the guest's console log on `node`, bytes."""
    return int(node.check(["sh", "-c", f"stat -c %s {_LOGS[node.name]} 2>/dev/null || echo 0"]).strip())


def _log(node: Node, start: int) -> str:
    """Return the guest's console log on `node` from byte `start` on."""
    return node.run(["tail", "-c", f"+{start + 1}", _LOGS[node.name]], timeout=120).stdout


def start(node: Node, *, read_only: bool) -> None:
    """Create the guest on `node`, if wanted with a read-only disk. Raises CommandError."""
    disk = [f'disk=["format=raw,vdev=xvda,access=ro,target={DISK}"]'] if read_only else []
    node.check(["xl", "create", "-q", CONFIG, *disk], timeout=_START)


def destroy(node: Node) -> None:
    """End the guest on `node`, under each name that a migration may have given it."""
    for name in (GUEST, f"{GUEST}--incoming", f"{GUEST}--migratedaway"):
        node.run(["sh", "-c", 'xl domid "$1" >/dev/null 2>&1 && xl destroy "$1"', "sh", name], timeout=120)


def domains(node: Node) -> list[str]:
    """Return the names of the domains on `node` except dom0. Raises CommandError."""
    lines = node.check(["xl", "list"], timeout=120).splitlines()[1:]
    return [line.split()[0] for line in lines if line.split() and line.split()[0] != "Domain-0"]


def check_where(source: Node, target: Node) -> None:
    """Check that the guest is on `target` alone. Raises CheckError if it is not, CommandError."""
    here, there = domains(source), domains(target)
    if GUEST in here or GUEST not in there:
        raise CheckError(f"after the migration {source.name} has {here or 'no guest'}, {target.name} {there}")


def type_of(node: Node) -> str:
    """Return the guest's type, as its configuration on `node` has it: "pv" or "pvh". Raises CommandError."""
    return node.check(["sed", "-n", 's/^type *= *"\\(.*\\)"$/\\1/p', CONFIG]).strip()


def sizes(node: Node) -> tuple[Memory, Disk]:
    """Return the sizes of the guest's memory and disk on `node`. Raises CommandError."""
    memory = node.check(["sed", "-n", "s/^memory *= *//p", CONFIG])
    size, blocks, block = (int(word) for word in node.check(["stat", "-c", "%s %b %B", DISK]).split())
    return Memory(int(memory) << 20), Disk(size, blocks * block)


def router_bytes(router: Node) -> int:
    """Return the bytes that the router's device towards host-a has carried, both directions."""
    links = json.loads(router.check(["ip", "-j", "-s", "link"]))
    mac = ROUTER.nic(SITE_A).mac
    counts = next(link["stats64"] for link in links if link.get("address") == mac)
    return int(counts["rx"]["bytes"]) + int(counts["tx"]["bytes"])


def versions(lab: Lab) -> dict[str, str]:
    """Return the versions of the programs that figures depend on, by name. Raises CommandError."""
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
        done = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False)
        found["qemu"] = done.stdout.split("\n")[0].removeprefix("QEMU emulator version ").strip()
    except OSError:
        pass  # the lab's provider does not use QEMU
    return found


@contextmanager
def shown(nodes: Iterable[Node], say: Say) -> Iterator[None]:
    """Show what the guest prints on each of `nodes` while the block runs."""

    def follow(node: Node, tail: subprocess.Popen[bytes]) -> None:
        assert tail.stdout is not None
        for line in tail.stdout:
            say(Moving(node.name, f"{GUEST} says: {line.decode(errors='replace').strip()}"))

    tails = []
    for node in nodes:
        # The end of its standard input ends `tail` there; ending only ssh here would leave it running.
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
                tail.wait(_TAIL_ENDS)
            except subprocess.TimeoutExpired:
                tail.kill()
                tail.wait()
            say(Moving(node.name, ""))
