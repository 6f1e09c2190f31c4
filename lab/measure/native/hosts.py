"""The two hosts on network namespaces (lab.measure.hosts.Hosts), and how a run on them is measured.

Before: what a run reads is in the page cache, the memory it needs is touched, the disks are synced, the emulator's
counters are at zero. During: the wall time of each phase, and the bytes of host-a's device a few times a second.
After: CPU time by origin (lab.measure.cpu), the emulator's counters, and the SHA-256 of what arrived.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from lab.errors import CommandError
from lab.fakexen import tcp
from lab.fakexen.domain_stream import Stream
from lab.hosts.image import ext4
from lab.hosts.lifecycle.lab import Lab
from lab.hosts.provider.netns import Namespace, NetnsProvider
from lab.hosts.topology import HOST_A, HOST_B
from lab.measure import images
from lab.measure.cpu import Meter
from lab.measure.disk_hosts import DiskHosts
from lab.measure.images import Image
from lab.measure.native import loop
from lab.measure.native.fake_guest import NAME, FakeGuest
from lab.measure.native.link_watch import LinkWatch
from lab.measure.results import Disk, Figures, Lateness, Memory
from lab.measure.way import Way
from netem import netns
from netem.emulator.stats import Steal

_PORT = 9000
# `ip netns exec` has made a mount namespace, in which tracefs is mounted so that xenplugin can trace disk writes.
_TRACED = 'mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; exec "$@"'


class NativeHosts(DiskHosts):
    """Namespaces of `lab` with a guest for `way`, which has `image` as disk and `stream` as memory.

    To be used as a context manager. Host-a's files are in `folder`/a, host-b's in `folder`/b; they are deleted at
    the end, except the file for the memory, which the next run writes over. `writes`: what the guest writes to its
    disk, bytes a second. Raises LabError.
    """

    guest = NAME

    def __init__(
        self, lab: Lab, folder: Path, way: Way, image: Image, stream: Stream, meter: Meter, writes: int
    ) -> None:
        provider = lab.provider
        a, b = lab.node(HOST_A.name), lab.node(HOST_B.name)
        if not isinstance(provider, NetnsProvider) or not isinstance(a, Namespace) or not isinstance(b, Namespace):
            raise CommandError("the lab's hosts are not network namespaces")
        super().__init__(folder, image.path, a.popen, b.popen, HOST_B.nics[0].address)
        self._provider, self._link = provider, lab.spec.link
        self._namespaces = (a.namespace, b.namespace)
        self._way, self._image, self._stream, self._meter, self._writes = way, image, stream, meter, writes

    def _prepare(self) -> None:
        self._stack.callback(self._clear)
        self._make_folders()
        device = None
        if self._way.writes:
            self.disk = str(self._here / "disks" / "g1.img")
            ext4.copy_sparse(self._image.path, Path(self.disk))
            device = self._stack.enter_context(loop.attached(Path(self.disk)))
        self._fake = FakeGuest(
            self._stack, self._here, self._there, self._stream, Path(self.disk), device,
            writes=self._writes, memory=self._way.memory,
        )  # fmt: skip
        self._serve(self._fake.environment(self._there))
        self.reach = ["--config", str(self._here / "xenplugin.conf"), "-s", shlex.join(self.ssh)]

    def _command(self, words: Sequence[str]) -> list[str]:
        given = [f"{key}={value}" for key, value in self._fake.environment(self._here).items()]
        return ["sh", "-c", _TRACED, "sh", "env", *given, *words]

    def _clear(self) -> None:
        for home in (self._here, self._there):
            for path in home.iterdir() if home.exists() else ():
                if path.name != "memory":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    @contextmanager
    def measured(self) -> Iterator[None]:
        """See Hosts."""
        self._phases = {}
        os.sync()
        ipsec = [pid for name in self._namespaces for pid in netns.pids(name) if _program(pid) == "charon"]
        self._provider.set_link(self._link)  # counters at zero
        steal, cpu, watch = Steal(), self._meter.read(ipsec), LinkWatch(self._namespaces[0])
        began = time.monotonic()
        try:
            yield
            seconds = time.monotonic() - began
        finally:
            watch.stop()
        used, stats = self._meter.read(ipsec).since(cpu), self._provider.stats()
        directions = [stats[key] for key in ("a_to_b", "b_to_a")]
        rest = used.machine - stats["cpu_seconds"]
        own = rest - used.ipsec if used.own is None else used.own
        late = {key: max(each["lateness"][key] for each in directions) for key in ("p50", "p99", "max")}
        image, stream = self._image, self._stream
        self.figures = Figures(
            seconds=round(seconds, 3),
            phases=self._phases,
            memory=Memory(stream.memory, stream.size, stream.ratio, stream.sha256),
            disk=Disk(image.size, image.data, image.sha256) if self._way.disk else None,
            router_bytes=sum(each["bytes"] for each in directions),
            router_packets_lost=sum(each["lost"] + each["dropped"] for each in directions),
            emulator_lost=sum(each["overrun"] + each["undeliverable"] for each in directions),
            lateness=Lateness(**late),
            cpu_seconds=round(own, 3),
            ipsec_cpu_seconds=round(used.ipsec, 3),
            other_cpu_seconds=round(max(0.0, rest - used.ipsec - own), 3),
            steal=round(steal.as_dict()["share"], 4),
            timeline=watch.timeline(began),
        )

    @contextmanager
    def tcp(self) -> Iterator[str]:
        """See Hosts."""
        address = HOST_B.nics[0].address
        receiver = [str(self._there / "bin" / "xl"), "migrate-receive"]
        words = [sys.executable, tcp.__file__, "--listen", address, str(_PORT), *receiver]
        null = subprocess.DEVNULL
        listener = self._popen_b(words, stdin=null, stdout=subprocess.PIPE, stderr=null)
        assert listener.stdout is not None
        try:
            if listener.stdout.readline() != b"listening\n":
                raise CommandError(f"no program listens on port {_PORT} of host-b")
            yield shlex.join([sys.executable, tcp.__file__, address, str(_PORT)])
        finally:
            listener.stdout.close()
            listener.terminate()
            listener.wait()

    def check_guest(self) -> None:
        """See Hosts."""
        times = self._fake.times()
        self._check("memory", self._there / "memory", self._stream.sha256)
        figures = self.figures
        phases = figures.phases or {
            "connect": round(figures.seconds - (times["runs"] - times["began"]), 3),
            "memory": round(times["suspended"] - times["began"], 3),
            "stopped": round(times["runs"] - times["suspended"], 3),
        }
        downtime = round(times["runs"] - times["suspended"], 3)
        self.figures = replace(figures, downtime=downtime, phases=phases)

    def check_disk(self) -> None:
        """See Hosts. What a running guest has written up to its suspension must have arrived as well."""
        expected = self._image.sha256
        if self._way.writes:
            disk = Path(self.disk)
            expected = images.sha256(next(disk.parent.glob(f"{disk.name}.left-for-*"), disk))
            self.figures = replace(self.figures, written=expected != self._image.sha256)
        self._check("disk", Path(self.arrived), expected)


def _program(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    return ""
