"""How a way is measured: the same for each, so that their numbers can be laid side by side.

Before: the image is read once (it is in the page cache for every way), the disks are quiet, a fresh sshd
listens, the emulator's counters stand at zero, the packets are recorded. During: wall time of each phase.
After: CPU time of both sides, bytes on the wire, sha256sum of what arrived; then it is deleted.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from demo import DemoError
from demo.image import Image, sha256sum
from demo.process import Opener, allocated, cpu_seconds, pipeline
from demo.world import Traffic, World
from lab.verify.judge.finding import Finding
from netem.emulator.stats import Steal

_READ = 1 << 22


@dataclass
class Outcome:
    """What came of one way. Seconds and bytes; `whole`: sha256 is that of the source."""

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


Look = Callable[[Path, Outcome], None]


class Bar(Protocol):
    """One bar on the screen; both in bytes."""

    def update(self, done: int, wire: int) -> None:
        """So far."""

    def finish(self, done: int, wire: int) -> None:
        """At the end."""


class Screen(Protocol):
    """What the bench tells of its progress."""

    def bar(self, name: str, total: int) -> Any:
        """A context manager that gives a Bar."""


class Bench:
    """One run's folders, image and world. `here` is host a's folder, `there` host b's."""

    def __init__(self, world: World, image: Image, folder: Path, screen: Screen) -> None:
        self.world = world
        self.image = image
        self.screen = screen
        self.here, self.there = folder / "a", folder / "b"
        self.arrived = self.there / "disk.img"
        self.capture = folder / "capture.pcap"
        for path in (self.here, self.there):
            path.mkdir(exist_ok=True)
        self.outcome = Outcome("", "")  # of the way that is running

    def run(
        self,
        outcome: Outcome,
        way: Callable[[Bench], None],
        *,
        expected: str = "",
        keep: bool = False,
        look: Look | None = None,
    ) -> Outcome:
        """Measure `way` and fill in `outcome`; raises DemoError if a command fails.

        expected: sha256 of what must arrive, if it is not the image's own. keep: leave what arrived where it
        is. look: what is done with the capture, which is deleted then.
        """
        warm(self.image.path)
        os.sync()
        self.outcome = outcome
        with self._recording(outcome, look):
            self.world.reset()
            steal = Steal()
            at_start = cpu_seconds()
            with self.world.serving():
                way(self)
                outcome.traffic = self.world.traffic()
                outcome.steal = steal.as_dict()["share"]
                at_end = cpu_seconds()
            outcome.cpu_here, outcome.cpu_there = at_end - at_start, cpu_seconds() - at_end
        outcome.whole = sha256sum(self.arrived) == (expected or self.image.sha256)
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

    def phase(
        self,
        name: str,
        *commands: Sequence[str],
        total: int,
        done: Callable[[], int] | None = None,
        stdin: IO[Any] | None = None,
        stdout: IO[Any] | None = None,
        opener: Opener | None = None,
    ) -> None:
        """One phase of the way: a pipeline on host a, shown as a bar and timed.

        `done` gives the bytes of `total` that are through; without it, what host b's folder holds.
        """
        arrived = done or (lambda: allocated(self.there))
        before = self.world.carried()
        with self.screen.bar(name, total) as bar:

            def watch() -> None:
                bar.update(arrived(), self.world.carried() - before)

            run = [(opener or self.world.here, words) for words in commands]
            taken = pipeline(run, stdin=stdin, stdout=stdout, watch=watch)
            bar.finish(total, self.world.carried() - before)
        self.outcome.phases.append((name, taken))

    def clear(self) -> None:
        """Empty both hosts' folders."""
        for folder in (self.here, self.there):
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def warm(path: Path) -> None:
    """Read a file once, so that it is in the page cache if that has room. Raises DemoError."""
    room = bytearray(_READ)
    try:
        with path.open("rb", buffering=0) as file:
            while file.readinto(room):
                pass
    except OSError as error:
        raise DemoError(f"{path}: {error.strerror}") from error


def position(file: IO[Any]) -> Callable[[], int]:
    """How far the child that inherited `file` has read it: parent and child share one offset."""
    return lambda: os.lseek(file.fileno(), 0, os.SEEK_CUR)
