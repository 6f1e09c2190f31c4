"""Two hosts and the long link between them, with or without root.

As root: two network namespaces joined by netem's emulator, real interfaces, a recorder at one of them.
Without: processes of the user on loopback, and netem's relay, which delays and limits TCP connections; nothing
can be captured then. Everything is gone when the `with` block ends, however it ends.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from demo import DemoError
from demo.process import Opener, stop
from demo.remote import Remote
from netem.emulator.tun import NAME as DEVICE
from netem.errors import NetemError
from netem.profile import Profile
from netem.world import TwoHosts

_SSH_PORT = 22
_REPOSITORY = str(Path(__file__).resolve().parent.parent)
T = TypeVar("T")


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


class World:
    """The hosts: `here` sends, `there` receives; both are openers like subprocess.Popen."""

    kind: str
    can_record: bool
    address: str  # of host b, as host a calls it
    remote: Remote
    here: Opener
    there: Opener
    xenplugin_settings: Sequence[str] = ()  # lines of its configuration

    def reset(self) -> None:
        """Counts from here on."""
        raise NotImplementedError

    def traffic(self) -> Traffic:
        """What came of the counting."""
        raise NotImplementedError

    def carried(self) -> int:
        """Bytes that the link has carried so far, cheap enough to be asked ten times a second."""
        raise NotImplementedError

    def call_here(self, function: Callable[[], T]) -> T:
        """`function()` on host a: sockets that it makes belong there."""
        raise NotImplementedError

    def call_there(self, function: Callable[[], T]) -> T:
        """`function()` on host b."""
        raise NotImplementedError

    @contextmanager
    def serving(self) -> Iterator[None]:
        """sshd listens on host b while the block runs; then its CPU time is ours."""
        with self.remote.serving(self.there, self.call_there):
            yield

    @contextmanager
    def recording(self, path: Path) -> Iterator[dict[str, int]]:
        """Captures host a's packets into `path`; the dict has "packets" and "dropped" after the block."""
        words = [sys.executable, "-m", "lab.capture", "record", DEVICE, str(path)]
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


class _Namespaces(World):
    """Two network namespaces and the emulator."""

    kind = "two network namespaces, link emulated"
    can_record = True

    def __init__(self, hosts: TwoHosts, folder: Path) -> None:
        self._hosts = hosts
        self.address = hosts.b.address
        self.here, self.there = hosts.a.popen, hosts.b.popen
        self.remote = Remote(folder, self.address, _SSH_PORT, self.address, _SSH_PORT)
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

    def call_here(self, function: Callable[[], T]) -> T:
        return self._hosts.a.call(function)

    def call_there(self, function: Callable[[], T]) -> T:
        return self._hosts.b.call(function)

    def close(self) -> None:
        self._counters.close()


@contextmanager
def world(profile: Profile, folder: Path) -> Iterator[World]:
    """The best world that this user can have; `folder` is for keys and configuration. Raises DemoError."""
    try:
        if os.geteuid() == 0:
            with TwoHosts(profile) as hosts:
                here = _Namespaces(hosts, folder)
                try:
                    yield here
                finally:
                    here.close()
        else:
            with _user_world(profile, folder) as there:
                yield there
    except NetemError as error:
        hint = f" ({error.hint})" if error.hint else ""
        raise DemoError(f"{error}{hint}") from error


@contextmanager
def _user_world(profile: Profile, folder: Path) -> Iterator[World]:
    raise DemoError("without root there is nothing yet")
    yield
