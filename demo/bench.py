"""How a way is measured: alike for all of them, so that their numbers can be compared.

Before: the image is read once, so it is in the page cache for every way; the disks are synced; a fresh sshd
listens; the emulator's counters are at zero; packets are recorded. During: wall time of each phase. After: CPU
time of both hosts, bytes on the wire, the SHA-256 of what arrived; then that is deleted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.hosts import DemoHosts, Screen
from demo.image import Image
from demo.world import Traffic, World
from lab.measure import images
from lab.verify.judge.finding import Finding


@dataclass
class Outcome:
    """The result of one way. Seconds and bytes; `whole`: what arrived has the SHA-256 of the source."""

    title: str
    words: str
    key: str = ""
    phases: list[tuple[str, float]] = field(default_factory=list)
    cpu_here: float = 0.0
    cpu_there: float = 0.0
    traffic: Traffic | None = None
    steal: float = 0.0  # share of all CPU time
    whole: bool = False
    finding: Finding | None = None
    unrecorded: int = 0  # packets
    detail: dict[str, Any] = field(default_factory=dict)
    left_out: str = ""  # why, if it was not run
    extra: bool = False  # not one of those that are compared

    @property
    def seconds(self) -> float:
        """Wall time of all phases."""
        return sum(taken for _, taken in self.phases)

    @property
    def ours(self) -> bool:
        """It is xenplugin's."""
        return self.key.startswith("xenplugin")


#: Moves the disk once; returns what the program reports of it, if anything.
Copy = Callable[[DemoHosts], dict[str, Any]]
Look = Callable[[Path, Outcome], None]


@dataclass(frozen=True)
class Changed:
    """Another disk than the image: a file, its SHA-256, and how many of its bytes differ from the image's."""

    path: Path
    sha256: str
    amount: int


class Bench:
    """The world, the image, and folders for a run: `here` is host a's, `there` host b's."""

    def __init__(self, world: World, image: Image, folder: Path, screen: Screen) -> None:
        self.world = world
        self.image = image
        self.screen = screen
        self.folder = folder
        self.here, self.there = folder / "a", folder / "b"
        self.arrived = self.there / "disk.img"
        self.capture = folder / "capture.pcap"
        for path in (self.here, self.there):
            path.mkdir(exist_ok=True)

    def run(
        self,
        outcome: Outcome,
        copy: Copy,
        *,
        changed: Changed | None = None,
        keep: bool = False,
        look: Look | None = None,
    ) -> Outcome:
        """Measure `copy` and complete `outcome`; raises LabError if a command fails.

        changed: what is moved in place of the image. keep: do not delete what arrived. look: called with the
        capture, which is then deleted.
        """
        images.warm(self.image.path)
        os.sync()
        source, amount = (changed.path, changed.amount) if changed else (None, 0)
        hosts = DemoHosts(self.world, self.image, self.folder, self.screen, source, amount)
        with self._recording(outcome, look):
            with hosts:
                outcome.detail = copy(hosts)
        outcome.phases = list(hosts.figures.phases.items())
        outcome.traffic, outcome.steal = hosts.traffic, hosts.steal
        outcome.cpu_here, outcome.cpu_there = hosts.cpu_here, hosts.cpu_there
        outcome.whole = images.sha256(self.arrived) == (changed.sha256 if changed else self.image.sha256)
        if not keep:
            self.clear()
        os.sync()
        return outcome

    @contextmanager
    def _recording(self, outcome: Outcome, look: Look | None) -> Iterator[None]:
        if look is None:
            yield
            return
        with self.world.recording(self.capture) as counts:
            yield
        outcome.unrecorded = counts["dropped"]
        look(self.capture, outcome)
        self.capture.unlink()

    def clear(self) -> None:
        """Empty both hosts' folders."""
        for folder in (self.here, self.there):
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
