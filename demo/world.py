"""Two hosts and the long link between them, with or without root.

As root: two network namespaces joined by netem's emulator, real interfaces, a recorder at one of them.
Without: see demo.loopback. Everything is gone when the `with` block ends, however it ends.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo import DemoError
from demo.process import Opener, stop
from demo.remote import Remote, remote
from netem.emulator.tun import NAME as DEVICE
from netem.errors import NetemError, WorldError
from netem.profile import Profile
from netem.two_hosts import TwoHosts

_SSH_PORT, _PLAIN_PORT = 22, 9000  # in host b's namespace, where nobody else listens
_REPOSITORY = str(Path(__file__).resolve().parent.parent)

Say = Callable[[str], None]


@dataclass(frozen=True)
class Traffic:
    """What the link carried since the last `reset`: bytes both ways, seconds of lateness, packets dropped."""

    wire_bytes: int
    late_p50: float | None
    late_p99: float | None
    dropped: int


def link_profile() -> Profile:
    """The link that DEMO_RTT and DEMO_RATE ask for; 120 ms and 200 Mbit/s if they do not. Raises DemoError.

    Bare numbers are milliseconds and Mbit/s.
    """
    rtt, rate = os.environ.get("DEMO_RTT") or "120ms", os.environ.get("DEMO_RATE") or "200mbit"
    number = re.compile(r"\s*[0-9.]+\s*")
    try:
        return Profile.parse(
            rtt=f"{rtt}ms" if number.fullmatch(rtt) else rtt,
            rate=f"{rate}mbit" if number.fullmatch(rate) else rate,
        )
    except NetemError as error:
        hint = f" ({error.hint})" if error.hint else ""
        raise DemoError(f"DEMO_RTT={rtt} DEMO_RATE={rate}: {error}{hint}") from error


class World(ABC):
    """The hosts: `here` sends, `there` receives; both are openers like subprocess.Popen."""

    kind: str
    remote: Remote
    here: Opener
    there: Opener
    xenplugin_settings: Sequence[str] = ()  # lines of its configuration

    @abstractmethod
    def reset(self) -> None:
        """Counts from here on."""

    @abstractmethod
    def traffic(self) -> Traffic:
        """What came of the counting."""

    @abstractmethod
    def carried(self) -> int:
        """Bytes that the link has carried so far, cheap enough to be asked ten times a second."""

    @abstractmethod
    def plain(self) -> tuple[socket.socket, Callable[[], socket.socket]]:
        """A listening socket on host b, and what connects to it from host a, over the link."""

    @abstractmethod
    def listens(self) -> bool:
        """Whether sshd answers, asked on host b."""

    @contextmanager
    def serving(self) -> Iterator[None]:
        """sshd listens on host b while the block runs; then its CPU time is ours."""
        with self.remote.serving(self.there, self.listens):
            yield

    @abstractmethod
    def recording(self, path: Path) -> AbstractContextManager[dict[str, int]]:
        """Captures what passes host a into `path`; the dict has "packets" and "dropped" after the block."""


class _Namespaces(World):
    """Two network namespaces and the emulator."""

    kind = "two network namespaces, link emulated"

    def __init__(self, hosts: TwoHosts, folder: Path, say: Say) -> None:
        self._hosts = hosts
        self.here, self.there = hosts.a.popen, hosts.b.popen
        self.remote = remote(folder, hosts.b.address, _SSH_PORT, hosts.b.address, _SSH_PORT, say)
        # Opened inside the namespace once; read again and again from here.
        self._counters = hosts.a.call(Path("/proc/thread-self/net/dev").open)

    def reset(self) -> None:
        self._hosts.change(self._hosts.profile)

    def traffic(self) -> Traffic:
        stats = self._hosts.stats()
        ways = (stats["a_to_b"], stats["b_to_a"])
        late = stats["a_to_b"]["lateness"]
        dropped = sum(way["lost"] + way["dropped"] + way["overrun"] for way in ways)
        return Traffic(sum(way["bytes"] for way in ways), late["p50"], late["p99"], dropped)

    def carried(self) -> int:
        self._counters.seek(0)
        for line in self._counters:
            name, _, numbers = line.partition(":")
            if name.strip() == DEVICE:
                words = numbers.split()
                return int(words[0]) + int(words[8])
        return 0

    def plain(self) -> tuple[socket.socket, Callable[[], socket.socket]]:
        place = (self._hosts.b.address, _PLAIN_PORT)
        server = self._hosts.b.call(lambda: socket.create_server(place))
        return server, lambda: self._hosts.a.call(lambda: socket.create_connection(place, 10))

    def listens(self) -> bool:
        return self._hosts.b.call(self.remote.listens)

    @contextmanager
    def recording(self, path: Path) -> Iterator[dict[str, int]]:
        words = [sys.executable, "-m", "lab.verify.capture.record", DEVICE, str(path)]
        recorder = self.here(words, cwd=_REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert recorder.stdout is not None and recorder.stderr is not None
        counts: dict[str, int] = {}
        try:
            if recorder.stdout.readline().strip() != "recording":
                said = recorder.stderr.read().strip().splitlines()
                raise DemoError(f"no capture: {said[-1] if said else 'the recorder ended'}")
            yield counts
            recorder.send_signal(signal.SIGTERM)
            counts.update(json.loads(recorder.communicate(timeout=30)[0]))
        finally:
            stop(recorder)
            recorder.stdout.close()
            recorder.stderr.close()

    def close(self) -> None:
        self._counters.close()


@contextmanager
def world(profile: Profile, folder: Path, say: Say) -> Iterator[World]:
    """The best world that this user can have; `folder` is for keys and configuration. Raises DemoError."""
    from demo.loopback import loopback

    with ExitStack() as stack:
        try:
            hosts = stack.enter_context(TwoHosts(profile))
        except WorldError as error:  # no root, or a root that may not make namespaces
            say(f"{error}: loopback and a relay instead")
            yield stack.enter_context(loopback(profile, folder, say))
        else:
            yield stack.enter_context(_namespaces(hosts, folder, say))


@contextmanager
def _namespaces(hosts: TwoHosts, folder: Path, say: Say) -> Iterator[World]:
    both = _Namespaces(hosts, folder, say)
    try:
        yield both
    finally:
        both.close()
