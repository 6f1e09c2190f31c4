"""The two hosts of a user without root: both are this machine, the link is netem's relay on loopback.

    ssh -> tap -> relay (delay, rate) -> sshd of the same user

xenplugin's own connections take that road too: the far side listens on a port of 127.0.0.1, and the tap has the
same port of ::1, which is the address that xenplugin is told. The relay has neither slow start nor loss, so the
times say less than root's.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.remote import free_port, remote
from demo.tap import Tap
from demo.world import Say, Traffic, World
from netem.profile import Profile
from netem.relay import Relay

_HOST = "127.0.0.1"


class Loopback(World):
    """`relay` is running; `port` is where the user's sshd will listen."""

    kind = "loopback, link imitated by a relay"

    def __init__(self, relay: Relay, tap: Tap, port: int, folder: Path, say: Say) -> None:
        self._relay = relay
        self._tap = tap
        self.here = self.there = subprocess.Popen
        self.xenplugin_settings = self._data_port()
        self.remote = remote(folder, _HOST, port, _HOST, tap.through(relay.ports[0]), say)

    def _data_port(self) -> list[str]:
        """Settings with which xenplugin's connections go through the tap; through ssh, if there is no IPv6."""
        data = free_port()
        try:
            self._tap.through(self._relay.add(0, _HOST, data), ("::1", data))
        except OSError:
            return ['ports = "0"']
        return [f'ports = "{data}"', 'address = "::1"']

    def reset(self) -> None:
        self._relay.change(self._relay.profile)

    def traffic(self) -> Traffic:
        stats = self._relay.stats()
        late = stats["out"]["lateness"]
        return Traffic(stats["out"]["bytes"] + stats["back"]["bytes"], late["p50"], late["p99"], 0)

    def carried(self) -> int:
        return self._tap.carried

    def plain(self) -> tuple[socket.socket, Callable[[], socket.socket]]:
        server = socket.create_server((_HOST, 0))
        port = self._tap.through(self._relay.add(0, _HOST, server.getsockname()[1]))
        return server, lambda: socket.create_connection((_HOST, port), 10)

    def listens(self) -> bool:
        return self.remote.listens()

    @contextmanager
    def recording(self, path: Path) -> Iterator[dict[str, int]]:
        with self._tap.recording(path) as counts:
            yield counts


@contextmanager
def loopback(profile: Profile, folder: Path, say: Say) -> Iterator[World]:
    """Relay, tap and keys while the block runs. Raises NetemError, DemoError."""
    port = free_port()
    tap = Tap()
    with Relay(profile, [(0, _HOST, port)]) as relay:
        try:
            yield Loopback(relay, tap, port, folder, say)
        finally:
            tap.close()
