"""How a run on namespaces is measured, the same for each way: what it does, and what the link saw meanwhile.

Before: what it reads is in the page cache, what it will need of memory is touched, the disks are quiet, the
emulator's counters stand at zero. During: the wall time of each phase, the bytes of host-a's device a few times a
second. After: whose CPU time it was (cpu.py), what the emulator counted, and the SHA-256 of what arrived.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from lab.errors import CommandError
from lab.fakexen.domain_stream import Stream
from lab.hosts.lab import Lab
from lab.hosts.provider.netns import Namespace, NetnsProvider
from lab.hosts.topology import HOST_A, HOST_B
from lab.measure import ballast, images
from lab.measure.cpu import Meter
from lab.measure.images import Image
from netem import netns
from netem.emulator.stats import Steal
from netem.emulator.tun import NAME as DEVICE

#: Seconds between two looks at the device; how many points are kept.
_EVERY, _POINTS = 0.25, 240
_PATIENCE = 2 * 3600.0  # seconds for one command
_DEV = "/proc/thread-self/net/dev"


class Bench:
    """Two hosts of a lab of namespaces, an image and a memory. `here` and `there` are their folders."""

    def __init__(self, lab: Lab, folder: Path, image: Image, stream: Stream, meter: Meter) -> None:
        provider = lab.provider
        a, b = lab.node(HOST_A.name), lab.node(HOST_B.name)
        if not isinstance(provider, NetnsProvider) or not isinstance(a, Namespace):
            raise CommandError("this is for a lab of namespaces")
        self.lab, self.provider, self.a, self.b = lab, provider, a, b
        self.image, self.stream = image, stream
        self.here, self.there = folder / "a", folder / "b"
        self._meter = meter
        self._namespaces = [node.namespace for node in (a, b) if isinstance(node, Namespace)]
        self.figures: dict[str, Any] = {}
        for path in (self.here, self.there):
            path.mkdir(parents=True, exist_ok=True)

    def quiet(self, needed: int) -> None:
        """As it is before each run; `needed` bytes of memory will be used."""
        images.warm(self.image.path)
        images.warm(self.stream.path)
        ballast.touch(needed)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """The block is what is measured; `figures` has the rest afterwards, but for what the way itself knows."""
        self.figures = {"phases": {}}
        os.sync()
        ipsec = [pid for name in self._namespaces for pid in netns.pids(name) if _command(pid) == "charon"]
        self.provider.set_link(self.lab.spec.link)  # counters at zero
        steal, cpu, watch = Steal(), self._meter.read(ipsec), _Watch(self._namespaces[0])
        began = time.monotonic()
        try:
            yield
            seconds = time.monotonic() - began
        finally:
            watch.stop()
        used, stats = self._meter.read(ipsec).since(cpu), self.provider.stats()
        ways = [stats[key] for key in ("a_to_b", "b_to_a")]
        rest = used.machine - stats["cpu_seconds"]
        own = rest - used.ipsec if used.own is None else used.own
        self.figures |= {
            "seconds": round(seconds, 3),
            "router_bytes": sum(way["bytes"] for way in ways),
            "router_packets_lost": sum(way["lost"] + way["dropped"] for way in ways),
            "emulator_lost": sum(way["overrun"] + way["undeliverable"] for way in ways),
            "cpu_seconds": round(own, 3),
            "ipsec_cpu_seconds": round(used.ipsec, 3),
            "other_cpu_seconds": round(max(0.0, rest - used.ipsec - own), 3),
            "steal": round(steal.as_dict()["share"], 4),
            "lateness": {key: max(way["lateness"][key] for way in ways) for key in ("p50", "p99", "max")},
            "timeline": watch.timeline(began),
        }

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A phase of the way."""
        began = time.monotonic()
        yield
        self.figures["phases"][name] = round(time.monotonic() - began, 3)

    def run(self, words: Sequence[str], *, stdout: IO[bytes] | None = None) -> list[str]:
        """A command on host-a, as part of a phase; the lines that it said. Raises CommandError."""
        with tempfile.TemporaryFile() as said:
            child = self.a.popen(words, stdin=subprocess.DEVNULL, stdout=stdout or said, stderr=said)
            try:
                code = child.wait(_PATIENCE)
            except BaseException:
                child.terminate()
                with suppress(Exception):
                    child.wait(10)
                child.kill()
                child.wait()
                raise
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            if code:
                raise CommandError(f"{Path(words[0]).name} failed ({code}): {'; '.join(lines[-3:])}")
            return lines

    def check(self, name: str, path: Path, expected: str) -> None:
        """What arrived is what was sent, else CommandError."""
        found = images.sha256(path)
        if found != expected:
            raise CommandError(f"{name}: what arrived is not what was sent")
        self.figures.setdefault("sha256", {})[name] = found

    def clear(self) -> None:
        """Empty both hosts' folders, but for what a memory is copied to."""
        for folder in (self.here, self.there):
            for path in folder.iterdir():
                if path.name != "memory":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


class _Watch:
    """Bytes of the device in `namespace`, both ways, from its making to `stop()`."""

    def __init__(self, namespace: str) -> None:
        self._file = netns.call(namespace, lambda: open(_DEV, encoding="ascii"))  # noqa: SIM115
        self._seen: list[tuple[float, int]] = [(time.monotonic(), self._bytes())]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._seen.append((time.monotonic(), self._bytes()))
        self._file.close()

    def timeline(self, began: float) -> list[list[float]]:
        """[seconds since `began`, bytes a second until then], _POINTS at most."""
        step = -(-len(self._seen) // _POINTS)
        kept = self._seen[:-1:step] + self._seen[-1:]
        return [
            [round(now - began, 2), round((count - before) / (now - then))]
            for (then, before), (now, count) in itertools.pairwise(kept)
            if now > then
        ]

    def _work(self) -> None:
        while not self._stop.wait(_EVERY):
            self._seen.append((time.monotonic(), self._bytes()))

    def _bytes(self) -> int:
        self._file.seek(0)
        for line in self._file:
            name, _, numbers = line.partition(":")
            if name.strip() == DEVICE:
                words = numbers.split()
                return int(words[0]) + int(words[8])
        return 0


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    return ""
