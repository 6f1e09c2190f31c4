"""Records what crosses the router, by tcpdump on the device that leads to host-a.

In a lab of namespaces the router is an emulator; there the link's own device in host-a shows what crosses it.

tcpdump reads from a ring buffer of 32 MiB. Its immediate mode is not used, because it would divide that buffer into
512 slots of the largest packet's size, and a machine that is busy for a moment would drop packets. Without it the
kernel hands over a block when it is full or after a second. So when the traffic has ended, tcpdump is asked for its
counters until it has read every packet that had been received by then.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.errors import CheckError, CommandError
from lab.hosts.interface import Node, Provider
from lab.hosts.role.swan import ends

_PATIENCE = 120.0  # seconds for tcpdump to start, to answer or to end
_DRAIN_SECONDS = 30.0  # of a quiet machine, for tcpdump to read what was received
_POLL_SECONDS = 0.3
_TRIES = 3
_ALL = "any"  # tcpdump's name for all devices together
# $0: the address whose device is recorded, or "any"; $1: the file. Linux or FreeBSD. -Z: written as root, not as a
# user of tcpdump's.
_RECORD = """
if [ "$0" = any ]; then
    device=any
elif command -v ip >/dev/null; then
    device=$(ip -o route get "$0" | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p')
else
    device=$(route -n get "$0" | sed -n 's/.*interface: //p')
fi
echo $$ >"$1".pid && exec tcpdump -i "$device" -n -U -s 65549 -B 32768 -Z root -w "$1"
"""
# FreeBSD has SIGINFO for this, Linux does not know that name.
_ASK = 'pid=$(cat "$0".pid) && { kill -INFO $pid 2>/dev/null || kill -USR1 $pid; }'
# The number is used once: later it may be another process's.
_END = 'pid=$(cat "$0".pid) && rm "$0".pid && kill -INT $pid'


@dataclass
class Counts:
    """Packets of a capture; both are set when the recording has ended. `dropped`: packets that crossed and are
    missing from the capture."""

    packets: int = 0
    dropped: int = 0


def record_all(provider: Provider, path: Path, traffic: Callable[[], object]) -> int:
    """Record what crosses the router while `traffic()` runs, in the pcap file `path`. Returns how many packets.

    A capture that lacks packets proves nothing, so everything is then done again. Raises CheckError if packets were
    dropped each time, CommandError, and what `traffic` raises.
    """
    for _ in range(_TRIES):
        with recording(provider, path) as counts:
            traffic()
        if not counts.dropped:
            return counts.packets
    raise CheckError(
        f"the capture lacks {counts.dropped} packets, after {_TRIES} attempts", hint="is the host overloaded?"
    )


@contextlib.contextmanager
def recording(provider: Provider, path: Path) -> Iterator[Counts]:
    """Record what crosses the router while the block runs, in the pcap file `path`. Raises CommandError."""
    a, b = ends(provider.abilities.esp)
    nodes = provider.nodes()
    if "router" in nodes:
        # A file where there is room.
        with recording_at(nodes["router"], path, a.endpoint, "/var/tmp/xenlab.pcap") as counts:
            yield counts
    else:
        with recording_at(nodes[a.name], path, b.endpoint) as counts:
            yield counts


@contextlib.contextmanager
def recording_at(node: Node, path: Path, towards: str = _ALL, remote: str = "/run/xenlab.pcap") -> Iterator[Counts]:
    """Record what crosses the device of `node` that leads to the address `towards` (default: all devices) while the
    block runs, in the file `remote` there, which is then moved to `path` here. Raises CommandError."""
    recorder = node.popen(
        ["sh", "-c", _RECORD, towards, remote],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    counts = Counts()
    try:
        _read_until(node, recorder, "listening on")
        yield counts
        unread = _drain(node, recorder, remote)
        node.check(["sh", "-c", _END, remote])
        captured, _, dropped = _counters(_read_until(node, recorder, "dropped by kernel"))
        node.get(remote, path)
        counts.packets, counts.dropped = captured, dropped + unread
    finally:
        with contextlib.suppress(CommandError):  # the node may be gone
            node.run(["sh", "-c", f'[ ! -e "$0".pid ] || {{ {_END}; }}; rm -f "$0"', remote])
        if recorder.poll() is None:
            recorder.terminate()
        recorder.wait()
        assert recorder.stderr is not None
        recorder.stderr.close()


def _drain(node: Node, recorder: subprocess.Popen[bytes], remote: str) -> int:
    """Wait until tcpdump has read every packet that the kernel had received when this was called. Returns the
    number of packets that it did not read in time. Raises CommandError."""
    deadline = time.monotonic() + _DRAIN_SECONDS * node.pace()
    wanted: int | None = None
    while True:
        node.check(["sh", "-c", _ASK, remote])
        captured, received, dropped = _counters(_read_until(node, recorder, "dropped by kernel"))
        wanted = received if wanted is None else wanted
        unread = max(wanted - captured - dropped, 0)
        if not unread or time.monotonic() > deadline:
            return unread
        time.sleep(_POLL_SECONDS)


def _counters(text: str) -> tuple[int, int, int]:
    """Return the packets captured, received and dropped from what tcpdump printed."""
    found = {what: int(number) for number, what in re.findall(r"(\d+) packets? (captured|received|dropped)", text)}
    return found.get("captured", 0), found.get("received", 0), found.get("dropped", 0)


def _read_until(node: Node, recorder: subprocess.Popen[bytes], wanted: str) -> str:
    """Return what tcpdump prints, up to the line that contains `wanted`. Raises CommandError if it ends before."""
    assert recorder.stderr is not None
    alarm = threading.Timer(_PATIENCE, recorder.terminate)
    alarm.start()
    text = ""
    try:
        for line in recorder.stderr:
            text += line.decode(errors="replace")
            if wanted in text:
                return text
    finally:
        alarm.cancel()
    raise CommandError(f"{node.name}: no capture: {'; '.join(text.splitlines()) or 'tcpdump ended'}")
