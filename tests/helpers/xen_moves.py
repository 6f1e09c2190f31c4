"""Guests moved by the plugin on the lab's two Xen hosts: started, held at a point, broken there, and looked at.

Strategy: a lab may be slow and ssh to it slower (seconds), so what has to happen at a point of a migration waits
for that point on the host itself: a few lines of Python there (`Trap`) follow the migration's events or its record,
and run a command the moment it comes. What a guest went through is read from its console on both hosts: its ticks
say that it was not started from an older state, not run twice and for how long it stood still, its own checks that
its disk and memory are whole.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lab.errors import CheckError, CommandError
from lab.hosts.guest.trace import Trace, parse
from lab.hosts.interface import Node
from lab.hosts.lifecycle.lab import Lab
from lab.hosts.topology import HOST_A, HOST_B
from xenplugin.xen.xl import Domain, parse_list

#: Where the migration that runs on a host writes its events.
EVENTS = "/run/xenlab-migrate.jsonl"
RECORDS = "/var/lib/xen/xenplugin/migrations"
#: Seconds of a quiet machine; a lab multiplies them.
START, MOVE, ASK = 300.0, 1200.0, 180.0

# event REGEX COMMAND: a line of the migration's events; state ROLE STATE COMMAND: its record.
_TRAP = f"""
import glob, os, re, signal, subprocess, sys, time
*what, command = sys.argv[1:]
verb = "receive" if what[:2] == ["state", "destination"] else "transport"
def read(path):
    try:
        return open(path).read()
    except OSError:
        return ""
def owners():
    found = glob.glob("/proc/[0-9]*/cmdline")
    return [int(path.split("/")[2]) for path in found if f"xenplugin\\0{{verb}}\\0" in read(path)]
def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
seen, looked, held = len(read({EVENTS!r})), 0.0, []  # of the migration before
print("set", flush=True)
while True:
    if time.monotonic() - looked > 1:
        held, looked = owners(), time.monotonic()
    if what[0] == "event":
        text = read({EVENTS!r})
        end = text.rfind("\\n") + 1
        if end < seen:
            seen = 0
        if re.search(what[1], text[seen:end]):
            break
        seen = end
    elif any('"state": "%s"' % what[2] in read(path) for path in glob.glob("{RECORDS}/*.%s.json" % what[1])):
        break
    time.sleep(0.005)
send(held, signal.SIGSTOP)
print("sprung", flush=True)
code = subprocess.run(["sh", "-c", command]).returncode
send(held, signal.SIGCONT)
sys.exit(code)
"""


def hosts(lab: Lab) -> tuple[Node, Node]:
    """host-a and host-b. Raises LabError."""
    return lab.node(HOST_A.name), lab.node(HOST_B.name)


def domains(node: Node) -> list[Domain]:
    """The domains of a host but dom0. Raises CommandError, PeerError."""
    return [each for each in parse_list(node.check(["xl", "list", "-v"], timeout=ASK)) if each.domid]


@dataclass(frozen=True)
class Home:
    """A guest's domain that runs under its own name, and its host."""

    node: Node
    domain: Domain


class Guest:
    """The guest `name` of /srv/guests on one or the other of the lab's hosts. `words` go to xl create with its
    configuration. Methods raise CommandError, CheckError."""

    def __init__(self, lab: Lab, name: str = "g1", words: Sequence[str] = ()) -> None:
        self.lab, self.name, self._words = lab, name, words
        self.disk = f"/srv/guests/{name}.img"
        self._logs = [f"/var/log/xen/console/guest-{name}{end}.log" for end in ("", "--incoming")]

    def create(self, node: Node) -> None:
        """Start it anew on `node`, after ending whatever is left of it, and wait until it ticks."""
        self.destroy()
        for each in hosts(self.lab):  # xenconsoled appends, so emptying is safe
            each.check(["sh", "-c", 'for log; do [ ! -e "$log" ] || : >"$log"; done', "sh", *self._logs])
        node.check(["xl", "create", "-q", f"/srv/guests/{self.name}.cfg", *self._words], timeout=START)
        self.await_trace(lambda seen: len(seen.ticks) >= 3, "it does not tick")

    def destroy(self) -> None:
        """End it everywhere, under whatever name."""
        for node in hosts(self.lab):
            for domain in domains(node):
                if domain.name.split("--")[0] == self.name:
                    node.run(["xl", "destroy", str(domain.domid)], timeout=ASK)

    def say(self, words: str) -> None:
        """A line on its console: `disk 500`, `memory 0` (KiB/s)."""
        self.home().node.check(["xenlab-guest", "say", self.name, words], timeout=ASK)

    def left(self) -> dict[str, list[Domain]]:
        """By host, what is there of it under any name."""
        return {
            node.name: [domain for domain in domains(node) if domain.name.split("--")[0] == self.name]
            for node in hosts(self.lab)
        }

    def home(self) -> Home:
        """Where it runs. Raises CheckError unless that is one host, and nothing else is left of it."""
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

    def console(self) -> str:
        """What it has said on both hosts since it was started."""
        script = 'for log; do [ ! -e "$log" ] || cat "$log"; done'
        return "".join(
            node.run(["sh", "-c", script, "sh", *self._logs], timeout=ASK).stdout for node in hosts(self.lab)
        )

    def trace(self) -> Trace:
        """Its ticks and checks since it was started."""
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
        """It goes on, has lost no tick, ran only once, and finds its disk and memory whole `rounds` times more."""
        before = self.trace()
        seen = self.await_trace(
            lambda now: now.rounds >= before.rounds + rounds and len(now.ticks) > len(before.ticks),
            f"it does not go on after tick {before.ticks[-1].number if before.ticks else None}",
        )
        again = twice(self.console())
        if seen.corrupt or seen.lost or again:
            raise CheckError(f"{self.name}: corrupt {seen.corrupt}, ticks lost {seen.lost}, said twice {again}")
        return seen


def twice(text: str) -> list[int]:
    """The numbers of ticks that a console has at two times: the guest ran twice, or from an older state. (The same
    line on both hosts is what both had taken from one console buffer.)"""
    said: dict[str, set[str]] = {}
    for wall, number in re.findall(r"^(\d+\.\d+) tick (\d+) ", text, re.MULTILINE):
        said.setdefault(number, set()).add(wall)
    return [int(number) for number, walls in said.items() if len(walls) > 1]


class Move:
    """A command on `node` that migrates, under way; `words` by default `xenplugin migrate GUEST HOST`. Its events
    are in EVENTS there."""

    def __init__(self, node: Node, words: Sequence[str]) -> None:
        self._node = node
        script = f"rm -f {EVENTS}; exec {shlex.join(words)} 2>{EVENTS}"
        self._process = node.popen(["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def end(self) -> tuple[int, str]:
        """Its exit code and what it printed. Raises CommandError if it does not end."""
        limit = MOVE * self._node.pace()
        try:
            said, _ = self._process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise CommandError(f"{self._node.name}: the migration does not end ({limit:.0f} s)") from None
        return self._process.returncode, said.decode(errors="replace")

    def events(self) -> list[dict[str, Any]]:
        """Its events so far; lines that are none are left out."""
        found = []
        for line in self._node.run(["cat", EVENTS], timeout=ASK).stdout.splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return found


def migrate(source: Node, target: Node, name: str = "g1", *options: str) -> Move:
    """`xenplugin migrate` of guest `name`, started."""
    return Move(source, ["xenplugin", "migrate", "--json", "--log-json", *options, name, target.name])


def moved(source: Node, target: Node, name: str = "g1", *options: str) -> dict[str, Any]:
    """The result of moving it. Raises CommandError if that fails."""
    move = migrate(source, target, name, *options)
    code, said = move.end()
    if code:
        raise CommandError(f"{source.name}: xenplugin migrate ended with {code}: {move.events()[-6:]}")
    result: dict[str, Any] = json.loads(said)
    return result


class Trap:
    """On `node` a command that runs the moment a point is reached: `at` is ("event", REGEX) of a line in EVENTS, or
    ("state", ROLE, STATE) of a migration's record. Meanwhile the process of ours that owns the guest there stands
    still, else the point would be over. Set when the constructor returns."""

    def __init__(self, node: Node, at: Sequence[str], command: str) -> None:
        self._node = node
        self._process = node.popen(
            ["python3", "-c", _TRAP, *at, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "set\n":
            raise CommandError(f"{node.name}: the trap for {at} cannot be set")

    def await_said(self, line: str) -> None:
        """Wait until its command prints `line`. Raises CommandError if the trap ends before."""
        assert self._process.stdout is not None
        for said in self._process.stdout:
            if said == line:
                return
        raise CommandError(f"{self._node.name}: the trap ends without {line!r}")

    def say(self, line: str) -> None:
        """Give its command a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def end(self) -> str:
        """Wait for it; what its command printed. Raises CommandError if the point does not come."""
        try:
            said, _ = self._process.communicate(timeout=MOVE * self._node.pace())
        except subprocess.TimeoutExpired:
            self.close()
            raise CommandError(f"{self._node.name}: the point does not come") from None
        text: str = said
        return text.removeprefix("sprung\n")

    def close(self) -> None:
        """Take it away."""
        self._process.kill()
        self._process.wait()


def recover(node: Node) -> tuple[int, str]:
    """`xenplugin recover` on `node`: exit code and what it said."""
    done = node.run(["xenplugin", "recover"], timeout=ASK * 2)
    return done.code, done.said


def clean(node: Node) -> list[str]:
    """What a migration has left on `node` that should not be there: records, xenstore's nodes, processes, empty
    files in the place of disks."""
    script = f"""
        ls -A {RECORDS} 2>/dev/null | grep -Evx 'lock|busy'
        xenstore-ls /tool/xenplugin/migration 2>/dev/null
        ps -eo pid=,args= | grep -E '[x]l migrate |[x]enplugin (receive|transport)|[l]ibxl-save-helper'
        find /srv/guests -name '*.img' -size 0
        ls -d /sys/kernel/tracing/instances/xenplugin* 2>/dev/null
        :"""
    return node.check(["sh", "-c", script], timeout=ASK).splitlines()
