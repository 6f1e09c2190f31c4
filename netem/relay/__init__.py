"""A long link for TCP without root: a relay on loopback that holds every byte back for half the RTT, each
way.

    with Relay(Profile.parse(rtt="120ms", rate="200mbit"), [(0, "127.0.0.1", 22)]) as relay:
        subprocess.run(["ssh", "-p", str(relay.ports[0]), "127.0.0.1", "true"])

What it imitates: the delay of each direction; one rate limit per direction over all connections together; a
queue in front of it; and the round trip that setting up a connection costs, so that the first byte reaches
the server 1.5 RTT after connect() and the server's first byte is back after 2 RTT, as with a real handshake.
What it does not: connect() itself returns at once; there is no slow start and no congestion control (loopback
TCP needs none), no loss and no jitter; a full queue stops the sender instead of dropping; bytes are TCP
payload, so headers are not counted; a refused connection is seen as one that is closed after 2 RTT. Use
netem.two_hosts, which has all that, where there is root.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from netem.child import Child
from netem.errors import BackendError, ProfileError
from netem.profile import Profile

Target = tuple[int, str, int]
"""(port to listen on, 0 for any free one; host; port)."""


def check(profile: Profile) -> Profile:
    """The profile, if a relay can do it. Raises ProfileError."""
    if profile.loss or profile.jitter:
        raise ProfileError(
            "a relay of TCP bytes has neither loss nor jitter",
            hint="as root, `netem run` emulates packets",
        )
    return profile


class Relay:
    """A child process that listens on 127.0.0.1. `ports` are the ports that were taken, in the order of
    `targets`.

    Raises ProfileError for loss or jitter, WorldError when a port cannot be had.
    """

    def __init__(self, profile: Profile, targets: Sequence[Target]) -> None:
        self.profile = check(profile)
        self.targets = list(targets)
        self.ports: list[int] = []
        self._child: Child | None = None

    def __enter__(self) -> Relay:
        maps = [word for port, host, to in self.targets for word in ("--map", f"{port}:{host}:{to}")]
        self._child = Child("netem.relay", [*maps, *self.profile.options()])
        self.ports = list(self._child.hello["ports"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the relay and all connections through it; harmless when repeated."""
        if self._child is not None:
            self._child.stop()

    def add(self, port: int, host: str, to: int) -> int:
        """Another target while the relay runs; the port that was taken. Raises WorldError."""
        taken = int(self._running().ask({"map": [port, host, to]})["port"])
        self.targets.append((port, host, to))
        self.ports.append(taken)
        return taken

    def change(self, profile: Profile) -> None:
        """Another delay or rate from now on; counters start at 0. Raises ProfileError or WorldError."""
        self._running().ask({"profile": check(profile).as_dict()})
        self.profile = profile

    def stats(self) -> dict[str, Any]:
        """`out` (towards the targets) and `back`: bytes delivered, lateness; connections; CPU seconds."""
        return self._running().ask({"stats": True})

    def _running(self) -> Child:
        if self._child is None:
            raise BackendError("the relay was not started")
        return self._child
