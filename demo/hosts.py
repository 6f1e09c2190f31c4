"""The demo's hosts for one way (lab.measure.hosts.Hosts): a progress bar a phase, and CPU time of each host."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from demo.image import Image
from demo.process import allocated, children_of, reap_orphans, wait_for_children_of
from demo.world import Traffic, World
from lab.measure.cpu import children_seconds
from lab.measure.disk_hosts import DiskHosts
from netem.emulator.stats import Steal

_EVERY = 0.1  # seconds between two updates of a bar
_SESSIONS_END = 5.0  # seconds
_LOOKS = 20  # at all open files, for one that is read


class Bar(Protocol):
    """A progress bar; both numbers are bytes."""

    def update(self, done: int, wire: int) -> None:
        """Show the bytes done, and those on the wire, so far."""

    def finish(self, done: int, wire: int) -> None:
        """Show the end."""


class Screen(Protocol):
    """What shows the progress."""

    def bar(self, name: str, total: int) -> AbstractContextManager[Bar]:
        """Return a context manager that yields a Bar."""


class DemoHosts(DiskHosts):
    """Hosts of `world` for one way, which moves the disk `source`, by default the image's.

    `folder` has their files. `changed`: how much of the disk differs from what host b has, if that has an old copy.
    Afterwards `traffic`, `steal` (a share of all CPU time) and `cpu_here` and `cpu_there` (seconds) are known.
    Nothing is compared: the bench does that.
    """

    def __init__(
        self, world: World, image: Image, folder: Path, screen: Screen, source: Path | None = None, changed: int = 0
    ) -> None:
        super().__init__(folder, source or image.path, world.here, world.there, world.address)
        self.arrived = str(self._there / "disk.img")
        self.traffic: Traffic | None = None
        self.steal = self.cpu_here = self.cpu_there = 0.0
        self._world, self._image, self._screen, self._changed = world, image, screen, changed

    def _prepare(self) -> None:
        self._stack.callback(self._ended)
        # Sessions of an sshd without root become orphans; the CPU time of all sessions is to be ours.
        self._stack.callback(reap_orphans, children_of(os.getpid()), _SESSIONS_END)
        super()._prepare()
        self._stack.callback(wait_for_children_of, self._server.pid, _SESSIONS_END)

    def _ended(self) -> None:
        self.cpu_there += children_seconds()

    @contextmanager
    def measured(self) -> Iterator[None]:
        """See Hosts."""
        self._world.reset()
        steal, begin = Steal(), children_seconds()
        with super().measured():
            yield
        self.traffic, self.steal = self._world.traffic(), steal.as_dict()["share"]
        end = children_seconds()
        # Host b's programs are children of sshd, whose time becomes ours when it has ended.
        self.cpu_here, self.cpu_there = end - begin, -end

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """See Hosts."""
        total, done = self._progress(name)
        before = self._world.carried()
        over = threading.Event()
        with self._screen.bar(name, total) as bar:

            def watch() -> None:
                while not over.wait(_EVERY):
                    bar.update(done(), self._world.carried() - before)

            thread = threading.Thread(target=watch, daemon=True)
            thread.start()
            try:
                with super().phase(name):
                    yield
            finally:
                over.set()
                thread.join()
            bar.finish(total, self._world.carried() - before)

    def check_disk(self) -> None:
        """Do nothing: see the class."""

    def _progress(self, name: str) -> tuple[int, Callable[[], int]]:
        """Return the bytes of a phase, and a function that returns how many of them are done."""
        if self._changed:
            before = self._world.carried()
            return self._changed, lambda: self._world.carried() - before
        packed = _length(self._here / "disk.gz")
        known: dict[str, tuple[int, Callable[[], int]]] = {
            "compress": (self._image.size, _reading(self.disk)),
            "encrypt": (packed, lambda: _length(self._here / "disk.enc")),
            "scp": (packed, lambda: _length(self._there / "disk.enc")),
            "decrypt": (packed, lambda: _length(self._there / "disk.gz")),
            "decompress": (self._image.size, lambda: _length(Path(self.arrived))),
        }
        return known.get(name, (self._image.allocated, lambda: allocated(self._there)))


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _reading(path: str) -> Callable[[], int]:
    """Return a function that returns how far another process has read the file, bytes."""
    real = os.path.realpath(path)
    found: list[Path] = []
    looks = iter(range(_LOOKS))

    def position() -> int:
        try:
            if not found and next(looks, None) is not None:
                links = Path("/proc").glob("[0-9]*/fd/*")
                found.extend(link.parents[1] / "fdinfo" / link.name for link in links if _target(link) == real)
            return int(found[0].read_text().split()[1]) if found else 0
        except (OSError, IndexError):
            return 0

    return position


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""
