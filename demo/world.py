"""Two hosts and the long link between them: network namespaces joined by netem's emulator.

Programs see real hosts: interfaces, TCP, an sshd, a recorder of packets. Everything is removed when the `with`
block ends, however it ends. Needs root, if only of a user namespace (netem.user_namespace).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo import DemoError
from demo.process import stop
from lab.measure.native.link_watch import DeviceCounter
from netem.emulator.tun import NAME as DEVICE
from netem.errors import NetemError
from netem.profile import Profile
from netem.two_hosts import TwoHosts
from netem.user_namespace import mapped_user

_SSH_PORT, _PLAIN_PORT = 22, 9000  # in host b's namespace, where all ports are free
# An ordinary user's sshd listens there too.
_SETTINGS = {"net.ipv4.ip_unprivileged_port_start": str(_SSH_PORT)}
_REPOSITORY = str(Path(__file__).resolve().parent.parent)


@dataclass(frozen=True)
class Traffic:
    """What the link carried since the last `reset`: bytes both ways, seconds of lateness, packets dropped."""

    wire_bytes: int
    late_p50: float | None
    late_p99: float | None
    dropped: int


def link_profile() -> Profile:
    """Return the link that DEMO_RTT and DEMO_RATE ask for, by default 120 ms and 200 Mbit/s. Raises DemoError."""
    rtt, rate = os.environ.get("DEMO_RTT") or "120ms", os.environ.get("DEMO_RATE") or "200mbit"
    try:
        return Profile.parse(rtt=rtt, rate=rate)
    except NetemError as error:
        hint = f" ({error.hint})" if error.hint else ""
        raise DemoError(f"DEMO_RTT={rtt} DEMO_RATE={rate}: {error}{hint}") from error


class World:
    """Host a sends, host b receives. `here` and `there` start programs on them, like subprocess.Popen.

    `address` is host b's.
    """

    def __init__(self, hosts: TwoHosts) -> None:
        self._hosts = hosts
        self.kind = "two network namespaces" + (", rootless" if mapped_user() else "") + ", link emulated"
        self.here, self.there = hosts.a.popen, hosts.b.popen
        self.address = hosts.b.address
        self._counter = DeviceCounter(hosts.a.name)

    def reset(self) -> None:
        """Start counting at zero."""
        self._hosts.change(self._hosts.profile)

    def traffic(self) -> Traffic:
        """Return what the link carried since `reset`."""
        stats = self._hosts.stats()
        directions = (stats["a_to_b"], stats["b_to_a"])
        late = stats["a_to_b"]["lateness"]
        dropped = sum(each["lost"] + each["dropped"] + each["overrun"] for each in directions)
        return Traffic(sum(each["bytes"] for each in directions), late["p50"], late["p99"], dropped)

    def carried(self) -> int:
        """Return the bytes that host a has sent and received so far; cheap enough for ten calls a second."""
        return self._counter.read()

    def plain(self) -> tuple[socket.socket, Callable[[], socket.socket]]:
        """Return a listening socket on host b, and a function that connects to it from host a."""
        place = (self._hosts.b.address, _PLAIN_PORT)
        server = self._hosts.b.call(lambda: socket.create_server(place))
        return server, lambda: self._hosts.a.call(lambda: socket.create_connection(place, 10))

    @contextmanager
    def recording(self, path: Path) -> Iterator[dict[str, int]]:
        """Record host a's packets into the pcap `path`; after the block the dict has "packets" and "dropped"."""
        words = [sys.executable, "-m", "lab.verify.capture.record", DEVICE, str(path)]
        recorder = self.here(words, cwd=_REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert recorder.stdout is not None and recorder.stderr is not None
        counts: dict[str, int] = {}
        try:
            if recorder.stdout.readline().strip() != "recording":
                lines = recorder.stderr.read().strip().splitlines()
                raise DemoError(f"no capture: {lines[-1] if lines else 'the recorder ended'}")
            yield counts
            recorder.send_signal(signal.SIGTERM)
            counts.update(json.loads(recorder.communicate(timeout=30)[0]))
        finally:
            stop(recorder)
            recorder.stdout.close()
            recorder.stderr.close()

    def close(self) -> None:
        """Close what was opened; the hosts stay until TwoHosts ends."""
        self._counter.close()


@contextmanager
def world(profile: Profile) -> Iterator[World]:
    """Make the two hosts for the block. Raises NetemError."""
    with TwoHosts(profile, sysctls=_SETTINGS) as hosts:
        made = World(hosts)
        try:
            yield made
        finally:
            made.close()
