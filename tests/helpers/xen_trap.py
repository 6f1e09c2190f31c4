"""Runs a command on one of the lab's hosts when a migration reaches a certain point.

A lab may be slow and ssh to it slower (seconds), so the command waits for that point on the host itself: a few
lines of Python there follow the migration's events or its record, and run it at once.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from lab.errors import CommandError
from lab.hosts.interface import Node
from tests.helpers.xen_moves import ASK, EVENTS, RECORDS

# event REGEX COMMAND: a line of the migration's events; state ROLE STATE COMMAND: its record. The kernel says when
# either changes (inotify): on an emulated host a point may have passed before one has looked again. Only programs
# that began after the trap was set are looked at, since reading all of /proc takes as long there.
_TRAP = f"""
import ctypes, glob, os, re, select, signal, subprocess, sys
*what, command = sys.argv[1:]
verb = "receive" if what[:2] == ["state", "destination"] else "transport"
libc, changed, renamed = ctypes.CDLL(None), 0x2 | 0x100, 0x80  # IN_MODIFY | IN_CREATE, IN_MOVED_TO
folder, wanted = ({os.path.dirname(EVENTS)!r}, changed) if what[0] == "event" else ({RECORDS!r}, renamed)
os.makedirs(folder, exist_ok=True)
watch, before = libc.inotify_init1(os.O_CLOEXEC), set(os.listdir("/proc"))
if watch < 0 or libc.inotify_add_watch(watch, folder.encode(), wanted) < 0:
    sys.exit("inotify fails")
def read(path):
    try:
        return open(path).read()
    except OSError:
        return ""
def owners():
    begun = [int(name) for name in os.listdir("/proc") if name.isdigit() and name not in before]
    return [pid for pid in begun if f"xenplugin\\0{{verb}}\\0" in read(f"/proc/{{pid}}/cmdline")]
def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
seen = len(read({EVENTS!r}))  # skips the events of the migration before
print("set", flush=True)
while True:
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
    if select.select([watch], [], [], 1)[0]:
        os.read(watch, 1 << 16)
held = owners()
send(held, signal.SIGSTOP)
print("sprung", flush=True)
code = subprocess.run(["sh", "-c", command]).returncode
send(held, signal.SIGCONT)
sys.exit(code)
"""


class Trap:
    """Runs a command on `node` when a migration reaches a point. `at` is ("event", REGEX), for a line in EVENTS, or
    ("state", ROLE, STATE), for the migration's record. While the command runs, the plugin's process that owns the
    guest there is stopped, since otherwise the point would pass. The trap is set when the constructor returns."""

    def __init__(self, node: Node, at: Sequence[str], command: str) -> None:
        self._node = node
        self._process = node.popen(
            ["python3", "-c", _TRAP, *at, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "set\n":
            raise CommandError(f"{node.name}: the trap for {at} cannot be set")

    def await_said(self, line: str) -> None:
        """Wait until its command prints `line`. Raises CommandError if the trap ends before that."""
        assert self._process.stdout is not None
        for said in self._process.stdout:
            if said == line:
                return
        raise CommandError(f"{self._node.name}: the trap ends without {line!r}")

    def say(self, line: str) -> None:
        """Write a line to its command's standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def end(self) -> str:
        """Wait for its end and return the command's output, after the migration has ended or reached the point.
        Raises CommandError if the point was not reached."""
        try:
            said, _ = self._process.communicate(timeout=ASK * self._node.pace())
        except subprocess.TimeoutExpired:
            self.close()
            raise CommandError(f"{self._node.name}: the migration did not reach the trap's point") from None
        text: str = said
        return text.removeprefix("sprung\n")

    def close(self) -> None:
        """Remove the trap."""
        self._process.kill()
        self._process.wait()
