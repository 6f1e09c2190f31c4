"""Two hosts on one machine: two network namespaces with an emulated link between them, removed afterwards.

    with TwoHosts(Profile.parse(rtt="120ms", rate="200mbit")) as hosts:
        hosts.b.popen(["iperf3", "-s"])
        hosts.a.run(["iperf3", "-c", hosts.b.address], check=True)
        print(hosts.stats()["a_to_b"])

Everything is removed when the block ends, also at exceptions, ctrl-C and SIGTERM. Only SIGKILL leaves the two
namespaces behind (the emulator ends when its stdin does); their names carry our process ID, so that `netem clean`
removes only those whose process is dead.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from netem import netns, sysctl
from netem.emulator.tun import NAME as DEVICE
from netem.errors import HostsError
from netem.processes import wait_or_kill
from netem.profile import MTU, Profile
from netem.signals import SigtermGuard, signals_wait
from netem.worker_ipc import Worker

T = TypeVar("T")
GSO_WITH_RATE = 16000  # bytes; a burst of 64 KiB would sit in a rate limit as one lump
QUEUED_FRAMES = 10000  # frames that the TUN device holds while the emulator is not scheduled
_GRACE_SECONDS = 2.0
_SERIAL = itertools.count(1)


class Host:
    """One side of the link: its namespace's `name`, and the addresses by which the other side reaches it."""

    def __init__(self, name: str, address: str, address6: str) -> None:
        self.name = name
        self.address = address
        self.address6 = address6
        self._children: list[subprocess.Popen[Any]] = []

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command line that runs `words` on this host."""
        return ["ip", "netns", "exec", self.name, *words]

    def run(self, words: Sequence[str], **kwargs: Any) -> subprocess.CompletedProcess[Any]:
        """subprocess.run on this host; the keywords are its own."""
        return subprocess.run(self.command(words), **kwargs)

    def popen(self, words: Sequence[str], **kwargs: Any) -> subprocess.Popen[Any]:
        """subprocess.Popen on this host; if it still runs when TwoHosts ends, it is terminated then."""
        child = subprocess.Popen(self.command(words), **kwargs)
        self._children.append(child)
        return child

    def call(self, function: Callable[[], T]) -> T:
        """Call `function` in a thread of this process that is on this host: its sockets belong to the host."""
        return netns.call(self.name, function)

    def end_all(self) -> None:
        """End the processes of popen(), then all others in the namespace, and abort its TCP connections."""
        for child in self._children:
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        for child in self._children:
            wait_or_kill(child, deadline - time.monotonic())
        self._children.clear()
        for pid in netns.pids(self.name):
            if pid != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        netns.drop_connections(self.name)


class TwoHosts:
    """Namespaces `<prefix>-a-<pid>` and `<prefix>-b-<pid>`, joined by an emulated link. Needs root.

    profile: the link, changeable by `change`.
    name_prefix: letters, digits, `_`. From the second object of a process on, a number follows the process ID.
    subnet, subnet6: first three parts of the IPv4 addresses (`10.77.0`), and the /64 of the IPv6 ones
        (`fd77:6e65::`).
    sysctls: settings written in both namespaces, e.g. {"net.ipv4.tcp_congestion_control": "cubic"}.

    Entering the block raises HostsError when something cannot be made, after removing the rest.
    """

    def __init__(
        self,
        profile: Profile,
        name_prefix: str = "xp",
        *,
        subnet: str = "10.77.0",
        subnet6: str = "fd77:6e65::",
        sysctls: Mapping[str, str] | None = None,
    ) -> None:
        if not name_prefix.replace("_", "").isalnum():
            raise HostsError(f"{name_prefix!r} is not a prefix of namespaces: use letters, digits and _ only")
        serial = next(_SERIAL)
        tail = f"{os.getpid()}" if serial == 1 else f"{os.getpid()}-{serial}"
        self.profile = profile
        self.a = Host(f"{name_prefix}-a-{tail}", f"{subnet}.1", f"{subnet6}1")
        self.b = Host(f"{name_prefix}-b-{tail}", f"{subnet}.2", f"{subnet6}2")
        self._sysctls = dict(sysctls or {})
        self._emulator: Worker | None = None
        self._guard = SigtermGuard()

    def __enter__(self) -> TwoHosts:
        if os.geteuid() != 0:
            raise HostsError(
                "network namespaces need root", hint="netem.user_namespace makes an ordinary user its root"
            )
        self._guard.set()
        try:
            for host in (self.a, self.b):
                netns.add(host.name)
            words = ["--ns-a", self.a.name, "--ns-b", self.b.name, *self.profile.options()]
            self._emulator = Worker("netem.emulator", words)
            for host in (self.a, self.b):
                self._configure(host)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything; harmless when repeated. Signals are delayed until it is done."""
        with signals_wait(), contextlib.ExitStack() as stack:  # each step runs even if another one fails
            for host in (self.a, self.b):
                stack.callback(netns.delete, host.name)
            if self._emulator is not None:
                stack.callback(self._emulator.stop)
            for host in (self.a, self.b):
                stack.callback(host.end_all)
        self._guard.restore()

    def stats(self) -> dict[str, Any]:
        """Return the emulator's counters since the start or the last change (docs/netem.md). Raises HostsError."""
        return self._link().ask({"stats": True})

    def change(self, profile: Profile) -> None:
        """Change the link from now on. Raises HostsError.

        Counters and packet numbers start at 0; packets in flight arrive when they were due; connections survive.
        """
        self._link().ask({"profile": profile.as_dict()})
        self.profile = profile
        for host in (self.a, self.b):
            netns.ip_batch(host.name, [f"link set dev {DEVICE} gso_max_size {self._gso()}"])

    def _link(self) -> Worker:
        if self._emulator is None:
            raise HostsError("the link does not exist yet: enter the `with` block of TwoHosts first")
        return self._emulator

    def _gso(self) -> int:
        return 65536 if self.profile.rate_bits is None else GSO_WITH_RATE

    def _configure(self, host: Host) -> None:
        other = self.b if host is self.a else self.a
        netns.ip_batch(
            host.name,
            [
                "link set dev lo up",
                # Nothing but the hosts' own packets on the link: losses are replayed by packet number.
                f"link set dev {DEVICE} addrgenmode none multicast off",
                f"link set dev {DEVICE} mtu {MTU} txqueuelen {QUEUED_FRAMES} gso_max_size {self._gso()}",
                f"address add {host.address}/24 dev {DEVICE}",
                f"address add {host.address6}/64 dev {DEVICE} nodad",
                f"link set dev {DEVICE} up",
                f"route get {other.address}",
            ],
        )
        sysctl.write_in(host.name, self._sysctls)
