"""The two hosts on real Xen (lab.measure.hosts.Hosts), and how a run on them is measured.

Everything is measured from outside: the time around the command, the bytes that the router's device counted, and
the guest's downtime by its own ticks (lab.measure.xen.guest).

A way that does not move the disk needs it on both hosts. It is then copied beforehand, and the guest has it
read-only from its start to its arrival, so that it finds what was copied. How long that copy took is recorded
apart.

A guest left from earlier runs is ended first, and the one that was moved at the end.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from lab.errors import CheckError, CommandError
from lab.hosts.guest import old_disk
from lab.hosts.interface import Node, Say
from lab.hosts.lifecycle.lab import Lab
from lab.hosts.role import clock
from lab.hosts.topology import HOST_A, HOST_B, ROUTER, address
from lab.measure.base_hosts import BaseHosts
from lab.measure.results import Figures, Measurement, RunResult
from lab.measure.way import Family, Way
from lab.measure.xen import guest
from lab.measure.xen.guest import DISK, GUEST, Console
from netem.remote_command import CommandResult

_PORT = 7000
_SOCAT = "socat -b 262144"  # bytes at a time; its default of 8192 costs CPU time
#: A listener that nobody connects to ends by itself.
_LISTEN = f"TCP-LISTEN:{_PORT},reuseaddr,accept-timeout=300"
_WORK = "/srv/measure"
_TIMEOUT = 1800.0  # seconds of a quiet machine, for one command


def measure(way: Way, lab: Lab, say: Say) -> RunResult:
    """Run `way` once in the lab as it is (which must be up) and return the result. Raises LabError."""
    run = Measurement(way.key, lab.spec)
    versions = guest.versions(lab)
    if way.family is Family.PLUGIN:
        versions["xenplugin"] = lab.node(HOST_A.name).check(["xenplugin", "--version"]).split()[-1]
    with XenHosts(lab, way, say) as hosts:
        way.run(hosts)
    return run.result(hosts.figures, versions)


class XenHosts(BaseHosts):
    """Two Xen hosts of `lab` with a guest for `way`. To be used as a context manager. Raises LabError."""

    guest, far = GUEST, HOST_B.name
    here = there = _WORK
    disk = arrived = DISK
    ssh: Sequence[str] = ("ssh",)
    scp: Sequence[str] = ("scp", "-q")
    xenplugin: Sequence[str] = ("xenplugin",)
    reach: Sequence[str] = ()

    def __init__(self, lab: Lab, way: Way, say: Say) -> None:
        super().__init__()
        self._source, self._target, self._router = (lab.node(each.name) for each in (HOST_A, HOST_B, ROUTER))
        self._way, self._say = way, say

    def _prepare(self) -> None:
        nodes = (self._source, self._target)
        for node in nodes:
            guest.destroy(node)
            self._stack.callback(guest.destroy, node)
            node.check(["sh", "-c", 'rm -rf "$1" && mkdir -m 700 "$1"', "sh", _WORK])
            self._stack.callback(node.run, ["rm", "-rf", _WORK])
        self._stack.enter_context(guest.shown(nodes, self._say))
        self._prepare_guest()

    def _prepare_guest(self) -> None:
        """Start the guest, unless it is to be stopped, and have its disk where the way expects it."""
        source, target = self._source, self._target
        for node in (source, target):
            old_disk.name_again(node, DISK)  # the run before has moved it
        self._memory, self._disk = guest.sizes(source)
        self._type = guest.type_of(source)
        self._disk_seconds: float | None = None
        self._disk_bytes: int | None = None
        target.check(["sh", "-c", 'rm -f "$1" "${1%/*}/.${1##*/}.xenplugin-"*', "sh", DISK])
        if not self._way.memory:
            return
        for node in (source, target):
            clock.set_right(node)
        self._console = Console(source, target, self._say)
        self._say(f"{source.name}: starting {GUEST}")
        guest.start(source, read_only=not self._way.disk)
        self._console.await_start()
        if not self._way.disk:
            self._say(f"{source.name}: copying the disk of {GUEST} to {target.name}")
            began, before = time.monotonic(), guest.router_bytes(self._router)
            self._copy_disk()
            self._disk_seconds = round(time.monotonic() - began, 3)
            self._disk_bytes = guest.router_bytes(self._router) - before

    def _copy_disk(self) -> None:
        folder, name = DISK.rsplit("/", 1)
        with _serving(self._target, f"{_SOCAT} -u {_LISTEN} - | tar -xS -C {folder}") as receiver:
            send = f"tar -cS -C {folder} {name} | {_SOCAT} -u - {_connect(self._target)}"
            self._source.check(["sh", "-c", send], timeout=_TIMEOUT)
            if receiver.wait(_TIMEOUT):  # all was sent; tar may still be writing
                raise CommandError(f"{self._target.name}: tar failed ({receiver.returncode})")

    @contextmanager
    def measured(self) -> Iterator[None]:
        """See Hosts."""
        self._say(f"{self._source.name}: {self._way.title}, {GUEST} to {self._target.name}")
        began, before = time.monotonic(), guest.router_bytes(self._router)
        yield
        seconds, moved = time.monotonic() - began, guest.router_bytes(self._router) - before
        # Steps were timed on host-a itself, without the time that the lab's own ssh takes.
        seconds = sum(self._phases.values()) or seconds
        self.figures = Figures(
            seconds=round(seconds, 3),
            phases=self._phases or {"memory": round(seconds, 3)},
            memory=self._memory,
            disk=self._disk,
            guest=self._type,
            router_bytes=moved,
            disk_seconds=self._disk_seconds,
            disk_router_bytes=self._disk_bytes,
        )

    def steps(self, steps: Mapping[str, str]) -> None:
        """See Hosts. The times are taken on host-a."""
        lines = ["set -e", *(f"date +%s.%N\n{{ {command}\n}} >&2" for command in steps.values()), "date +%s.%N"]
        said = self._source.check(["bash", "-c", "\n".join(lines)], timeout=_TIMEOUT)
        times = [float(line) for line in said.split()]
        self._phases |= {
            name: round(end - start, 3) for name, start, end in zip(steps, times, times[1:], strict=False)
        }

    def run(self, words: Sequence[str]) -> CommandResult:
        """See Hosts."""
        done = self._source.run(words, timeout=_TIMEOUT)
        if done.code:
            raise CommandError(f"{self._source.name}: {words[0]} failed ({done.code}): {done.error_text[-400:]}")
        self._lines = tuple(done.stderr.strip().splitlines()[-1:])
        return done

    @contextmanager
    def tcp(self) -> Iterator[str]:
        """See Hosts. socat takes the place of ssh, which would encrypt everything a second time."""
        with _serving(self._target, f"{_SOCAT} -t 600 {_LISTEN} EXEC:'xl migrate-receive'"):
            yield f"{_SOCAT} - {_connect(self._target)} #"  # what xl appends becomes a comment

    def check_guest(self) -> None:
        """See Hosts."""
        guest.check_where(self._source, self._target)
        seen = self._console.await_arrival()
        if self._way.disk and seen.lost:
            raise CheckError(f"{GUEST} lost its ticks {seen.lost[:5]}")
        apart = clock.difference(self._source, self._target)
        self._say(f"the hosts' clocks: {apart.ahead:+.3f} s apart, known to {apart.uncertain:.3f} s")
        self.figures = replace(
            self.figures,
            downtime=round(seen.downtime, 3),
            clocks_apart=round(apart.ahead, 3),
            ticks=len(seen.ticks),
            said=self._lines,
        )

    def check_disk(self) -> None:
        """See Hosts. A guest that runs has compared its disk's content itself (check_guest)."""
        if self._way.memory:
            return
        nodes = (self._source, self._target)
        here, there = (node.check(["sha256sum", DISK], timeout=_TIMEOUT).split()[0] for node in nodes)
        if here != there:
            raise CheckError("the disk that arrived differs from the one that was sent")


def _connect(target: Node) -> str:
    return f"TCP:{address(target.name)}:{_PORT},retry=30,interval=1"


@contextmanager
def _serving(node: Node, script: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `script` on `node` while the block runs."""
    null = subprocess.DEVNULL
    child = node.popen(["sh", "-c", script], stdin=null, stdout=null, stderr=null)
    try:
        yield child
    finally:
        child.kill()
        child.wait()
