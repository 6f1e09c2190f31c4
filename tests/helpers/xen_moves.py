"""Helpers that start guests on the lab's two Xen hosts, migrate them by the plugin, break migrations, and check
guests.

The history of a guest is read from its console on both hosts: its ticks show that it
was not started from an older state, that it did not run twice, and how long it stood still; its own checks show
that its disk and memory are intact.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from lab.errors import CheckError, CommandError
from lab.hosts.guest import old_disk
from lab.hosts.guest.trace import Trace, parse
from lab.hosts.interface import Node
from lab.hosts.lifecycle.lab import Lab
from lab.hosts.topology import HOST_A, HOST_B
from tests.helpers.xl_list import parse_list
from xenplugin.xen.xl import Domain

#: The file on a host to which a running migration writes its events.
EVENTS = "/run/xenlab-migrate.jsonl"
RECORDS = "/var/lib/xen/xenplugin/migrations"
#: Seconds of a quiet machine; a lab multiplies them.
START, MOVE, ASK = 300.0, 1200.0, 180.0
#: Options of a move between emulated hosts, on whose CPUs threads cost more than they gain.
FEW = ("--streams", "2", "--level", "1")


def hosts(lab: Lab) -> tuple[Node, Node]:
    """Return host-a and host-b. Raises LabError."""
    return lab.node(HOST_A.name), lab.node(HOST_B.name)


def domains(node: Node) -> list[Domain]:
    """Return the domains of a host without dom0. Raises CommandError, PeerError."""
    return [each for each in parse_list(node.check(["xl", "list", "-v"], timeout=ASK)) if each.domid]


@dataclass(frozen=True)
class Home:
    """The running domain of a guest, and its host."""

    node: Node
    domain: Domain


class Guest:
    """The guest `name` of /srv/guests on either of the lab's hosts. `words` are further arguments of xl create, and
    `disk` is its disk (default: its file in /srv/guests). Methods raise CommandError, CheckError."""

    def __init__(self, lab: Lab, name: str = "g1", words: Sequence[str] = (), disk: str = "") -> None:
        self.lab, self.name, self._words = lab, name, words
        self.disk = disk or f"/srv/guests/{name}.img"
        self._logs = [f"/var/log/xen/console/guest-{name}{end}.log" for end in ("", "--incoming")]

    def create(self, node: Node) -> None:
        """Destroy what is left of the guest, start it on `node`, and wait until it ticks."""
        self.destroy()
        for each in hosts(self.lab):
            old_disk.name_again(each, self.disk)
        self.forget_console()
        node.check(["xl", "create", "-q", f"/srv/guests/{self.name}.cfg", *self._words], timeout=START)
        self.await_trace(lambda seen: len(seen.ticks) >= 3, "it does not tick")

    def forget_console(self) -> None:
        """Empty the logs of its console; what it writes from now on is appended."""
        for each in hosts(self.lab):
            each.check(["sh", "-c", 'for log; do [ ! -e "$log" ] || : >"$log"; done', "sh", *self._logs])

    def destroy(self) -> None:
        """Destroy the guest on both hosts, under any name."""
        for node in hosts(self.lab):
            for domain in domains(node):
                if domain.name.split("--")[0] == self.name:
                    node.run(["xl", "destroy", str(domain.domid)], timeout=ASK)

    def forget_disk(self, node: Node) -> None:
        """Remove its disk from `node`, complete or not, and old ones."""
        old_disk.name_again(node, self.disk)
        node.check(["sh", "-c", 'rm -f "$1" "${1%/*}/.${1##*/}.xenplugin-"*', "sh", self.disk])

    def say(self, words: str) -> None:
        """Write a line to its console: `disk 500`, `memory 0` (KiB/s)."""
        self.home().node.check(["xenlab-guest", "say", self.name, words], timeout=ASK)

    def left(self) -> dict[str, list[Domain]]:
        """Return its domains on each host, under any name."""
        return {
            node.name: [domain for domain in domains(node) if domain.name.split("--")[0] == self.name]
            for node in hosts(self.lab)
        }

    def home(self) -> Home:
        """Return its running domain. Raises CheckError unless it runs exactly once and leaves nothing elsewhere."""
        found = self.left()
        running = [
            (host, domain)
            for host, those in found.items()
            for domain in those
            if domain.name == self.name and not domain.paused and not domain.suspended
        ]
        if len(running) != 1 or sum(map(len, found.values())) != 1:
            raise CheckError(f"{self.name} does not run exactly once: {found}")
        host, domain = running[0]
        return Home(self.lab.node(host), domain)

    def sides(self) -> tuple[Node, Node]:
        """Return the host on which it runs, and the other host."""
        here = self.home().node
        return here, next(node for node in hosts(self.lab) if node.name != here.name)

    def console(self) -> str:
        """Return the output of its console on both hosts since it was started."""
        script = 'for log; do [ ! -e "$log" ] || cat "$log"; done'
        return "".join(
            node.run(["sh", "-c", script, "sh", *self._logs], timeout=ASK).stdout for node in hosts(self.lab)
        )

    def trace(self) -> Trace:
        """Return its ticks and checks since it was started."""
        return parse(self.console())

    def await_trace(self, good: Callable[[Trace], bool], what: str) -> Trace:
        """Wait until its trace is `good`. Raises CheckError with `what`."""
        deadline = time.monotonic() + START * hosts(self.lab)[0].pace()
        while not good(seen := self.trace()):
            if time.monotonic() > deadline:
                raise CheckError(f"{self.name}: {what}; its console ends {self.console()[-300:]!r}")
            time.sleep(2)
        return seen

    def check_whole(self, rounds: int = 2) -> Trace:
        """Check that it continues, has lost no tick, did not run twice, and finds its disk and memory intact
        `rounds` more times. Returns its trace."""
        before = self.trace()
        seen = self.await_trace(
            lambda now: now.rounds >= before.rounds + rounds and len(now.ticks) > len(before.ticks),
            f"it does not continue after tick {before.ticks[-1].number if before.ticks else None}",
        )
        again = twice(self.console())
        if seen.corrupt or seen.lost or again:
            raise CheckError(f"{self.name}: corrupt {seen.corrupt}, ticks lost {seen.lost}, said twice {again}")
        return seen


@contextmanager
def started(lab: Lab) -> Iterator[Guest]:
    """Start g1 with 128 MiB on host-a, and destroy it at the end."""
    guest = Guest(lab, "g1", ["memory=128"])
    try:
        guest.create(hosts(lab)[0])
        yield guest
    finally:
        guest.destroy()


@contextmanager
def started_to_leave(lab: Lab) -> Iterator[Guest]:
    """Start g1 on host-a, where the plugin is enabled meanwhile, with no copy of its disk on host-b."""
    near, far = hosts(lab)
    with started(lab) as guest:
        guest.forget_disk(far)
        near.check(["xenplugin", "enable"], timeout=ASK)
        try:
            yield guest
        finally:
            near.check(["xenplugin", "disable"], timeout=ASK)


def twice(text: str) -> list[int]:
    """Return the numbers of ticks that a console has with two different times: the guest ran twice, or from an
    older state. (The same line on both hosts comes from one console buffer that both have read.)"""
    said: dict[str, set[str]] = {}
    for wall, number in re.findall(r"^(\d+\.\d+) tick (\d+) ", text, re.MULTILINE):
        said.setdefault(number, set()).add(wall)
    return [int(number) for number, walls in said.items() if len(walls) > 1]


class Move:
    """A running command that migrates, on `node`. Its events are in EVENTS there."""

    def __init__(self, node: Node, words: Sequence[str]) -> None:
        self._node = node
        script = f"rm -f {EVENTS}; exec {shlex.join(words)} 2>{EVENTS}"
        self._process = node.popen(["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def end(self) -> tuple[int, str]:
        """Wait for it, and return its exit code and output. Raises CommandError if it does not end."""
        limit = MOVE * self._node.pace()
        try:
            said, _ = self._process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise CommandError(f"{self._node.name}: the migration does not end ({limit:.0f} s)") from None
        return self._process.returncode, said.decode(errors="replace")

    def events(self) -> list[dict[str, Any]]:
        """Return its events so far; lines that are not JSON are left out."""
        found = []
        for line in self._node.run(["cat", EVENTS], timeout=ASK).stdout.splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return found


def migrate(source: Node, target: Node, name: str = "g1", *options: str) -> Move:
    """Start `xenplugin migrate` of guest `name`."""
    return Move(source, ["xenplugin", "migrate", "--json", "--log-json", *options, name, target.name])


def moved(source: Node, target: Node, name: str = "g1", *options: str) -> dict[str, Any]:
    """Migrate guest `name` and return the result. Raises CommandError if that fails."""
    move = migrate(source, target, name, *options)
    code, said = move.end()
    if code:
        raise CommandError(f"{source.name}: xenplugin migrate ended with {code}: {move.events()[-6:]}")
    result: dict[str, Any] = json.loads(said)
    return result


def recover(node: Node) -> tuple[int, str]:
    """Run `xenplugin recover` on `node`, and return its exit code and output."""
    done = node.run(["xenplugin", "recover"], timeout=ASK * 2)
    return done.code, done.error_text


def autostart(node: Node) -> str:
    """Start the guests of /etc/xen/auto as a restarting host does, without its masked unit. Returns the output."""
    script = "mount -t tmpfs none /run/systemd && exec /etc/init.d/xendomains start 2>&1"
    return node.run(["unshare", "--mount", "sh", "-c", script], timeout=START).stdout


def left_over(node: Node) -> list[dict[str, Any]]:
    """Return the rows of `xenplugin status` on `node`: old disks, and what was interrupted."""
    rows: list[dict[str, Any]] = json.loads(node.check(["xenplugin", "status", "--json"], timeout=ASK))
    return [row for row in rows if row["kind"] != "host"]


def clean(node: Node) -> list[str]:
    """Return what a migration has wrongly left on `node`: records, xenstore nodes, processes, empty files in
    the place of disks, and loop devices that no domain and no volume group has."""
    script = f"""
        ls -A {RECORDS} 2>/dev/null | grep -Evx 'lock|busy|settling'
        xenstore-ls /tool/xenplugin/migration 2>/dev/null
        ps -eo pid=,args= | grep -E '[x]l migrate |[x]enplugin (receive|transport)|[l]ibxl-save-helper'
        find /srv/guests -name '*.img' -size 0
        losetup -n -O NAME,BACK-FILE | grep ' /srv/guests/' | while read -r loop file; do
            xenstore-ls /local/domain/0/backend 2>/dev/null | grep -qw "$loop" ||
                [ "$(blkid -p -s TYPE -o value "$loop")" = LVM2_member ] || echo "$loop $file"
        done
        ls -d /sys/kernel/tracing/instances/xenplugin* 2>/dev/null
        :"""
    return node.check(["sh", "-c", script], timeout=ASK).splitlines()
