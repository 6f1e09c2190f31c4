"""What dies in a migration between the lab's Xen hosts, and how to settle what is left.

A process is killed by a shell on its host that is ready before, and a host by the end of its QEMU, so that nothing
is slow when the moment has come. A host that dies loses what it has not synced; it is booted again at once.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from lab.errors import CommandError
from lab.hosts.interface import Node
from lab.hosts.lifecycle.strategy import State
from lab.hosts.role import xenhost
from tests.helpers.xen_moves import ASK, EVENTS, Guest, Move, clean, hosts, recover

#: Process -> what finds its pids. The newest xl migrate-receive: those of former guests wait for their end.
PIDS = {
    "xl": "pgrep -f '^[^ ]*xl migrate '",
    "transport": "pgrep -f '^/usr/bin/python3 .*xenplugin transport'",
    "supervisor": "pgrep -f '^/usr/bin/python3 .*xenplugin migrate'",
    "ssh": "pgrep -f '^ssh .*xenplugin receive'",
    "receive": "ps -o ppid= -p $(pgrep -n -f '^[^ ]*xl migrate-receive')",
    "far-xl": "pgrep -n -f '^[^ ]*xl migrate-receive'",
}
FAR = ("receive", "far-xl")
#: Hosts, which die as a whole.
SOURCE, TARGET = "the source", "the target"
#: Phase -> about how many seconds it takes on a busy machine.
PHASES = {"connect": 10.0, "disks": 25.0, "memory": 30.0, "stopped": 4.0, "handover": 10.0}

# PHASE SECONDS: prints a line when the migration has been in that phase for so long.
_MOMENT = f"""
import os, sys, time
phase, seconds = sys.argv[1], float(sys.argv[2])
print("set", flush=True)
while not os.path.exists({EVENTS!r}):
    time.sleep(0.05)
with open({EVENTS!r}) as events:
    text = ""
    while f'"name": "{{phase}}"' not in text:
        time.sleep(0.05)
        text = text[-100:] + events.read()
time.sleep(seconds)
print("now", flush=True)
"""


@dataclass(frozen=True)
class Death:
    """`who` dies when the migration has been in `phase` for `seconds`; `first` is the host that recovers first."""

    who: str
    phase: str
    seconds: float
    first: str


def draw(source: random.Random) -> Death:
    """Return a death; the same for the same state of `source`."""
    phase = source.choice(list(PHASES))
    return Death(
        who=source.choice([*PIDS, SOURCE, TARGET, TARGET]),
        phase=phase,
        seconds=round(source.uniform(0, PHASES[phase]), 2),
        first=source.choice(["host-a", "host-b"]),
    )


def strike(guest: Guest, death: Death, start: Callable[[], Move]) -> tuple[Move, bool]:
    """Start a migration of the guest, and have the death happen in it. Returns the migration and True once it has,
    and False if the migration has ended before, or there was no such process. A host that has died runs again then.
    Raises CommandError."""
    source, target = guest.sides()
    host = target if death.who in (TARGET, *FAR) else source
    source.check(["rm", "-f", EVENTS], timeout=ASK)
    words = ["python3", "-c", _MOMENT, death.phase, str(death.seconds)]
    moment = source.popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    script = f"echo ready; read -r _; p=$({PIDS.get(death.who, '')}); kill -9 $p && echo killed"
    killer = host.popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert moment.stdout is not None and killer.stdout is not None
        if (moment.stdout.readline(), killer.stdout.readline()) != ("set\n", "ready\n"):
            raise CommandError(f"{source.name}, {host.name}: the death of {death.who} cannot be prepared")
        answer = select.poll()
        answer.register(moment.stdout, select.POLLIN)
        move = start()
        while not answer.poll(100):
            if move.ended:
                return move, False
        if death.who in PIDS:
            return move, killer.communicate("\n", timeout=ASK * host.pace())[0] == "killed\n"
        os.kill(guest.lab.provider.details()[host.name]["pid"], signal.SIGKILL)
        while host.name not in guest.lab.gone():
            time.sleep(0.1)
        guest.lab.up(State.BOOTED)
        xenhost.answering(guest.lab.node(host.name))
        return move, True
    finally:
        for process in (moment, killer):
            process.kill()
            process.wait()


def settle(guest: Guest, first: str) -> None:
    """Do what README says: recover on both hosts, on the host `first` before the other one. Raises CheckError."""
    nodes = sorted(hosts(guest.lab), key=lambda node: node.name != first)
    said = [recover(node) for node in nodes]
    assert said[1][0] == 0, said
    if said[0][0]:  # it needed the record of the other host
        assert recover(nodes[0])[0] == 0, said


def settled(guest: Guest, first: str, where: Node | None = None) -> None:
    """Recover on both hosts, and check that one intact guest runs, on `where` if given, and nothing else is
    left."""
    settle(guest, first)
    home = guest.home()
    assert where is None or home.node.name == where.name
    guest.check_whole()
    for node in hosts(guest.lab):
        assert clean(node) == []
