"""Does runs on network namespaces: has disks and memory made, and a quiet machine before each run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from lab.fakexen import domain_stream
from lab.hosts.interface import Say
from lab.hosts.lifecycle.lab import Lab
from lab.measure import ballast, images, programs, recorded_memory
from lab.measure.cpu import metered
from lab.measure.native import loop
from lab.measure.native.hosts import NativeHosts
from lab.measure.results import Measurement, Run, RunResult
from lab.measure.scenario import MADE, Scenario
from lab.measure.ways import WAYS


class NativeWorker:
    """Makes the runs of `scenario` (lab.measure.runner.Worker). `folder`: the name of its folder in the cache."""

    def __init__(self, scenario: Scenario, folder: str, say: Say) -> None:
        guest = scenario.guest
        self.versions = programs.versions()
        self._writes = guest.writes
        self._images = {data: images.obtain(guest.disk, data, say) for data in (guest.usual, *guest.data)}
        self._usual = self._images[guest.usual]
        recorded = None
        if guest.pages != MADE:
            recorded = recorded_memory.obtain(images.cache(), guest.memory, guest.pages, say)
        self._stream = domain_stream.obtain(images.cache(), guest.memory, self._usual.path, recorded, say)
        self.disks = {data: image.sha256 for data, image in self._images.items()}
        self.memory: str | None = self._stream.sha256
        self._folder = images.cache() / folder
        largest = max(image.data for image in self._images.values())
        whole = guest.disk if any(scenario.way(way).holes for way in scenario.ways) else largest
        self._needed = 3 * whole + 2 * largest + 2 * guest.memory + (1 << 30)

    @contextmanager
    def around(self) -> Iterator[None]:
        """Prepare for several runs; clean up afterwards, and before what a killed experiment left."""
        loop.detach_all(self._folder)
        shutil.rmtree(self._folder, ignore_errors=True)
        try:
            with ballast.held(self._needed), metered() as self._meter:
                yield
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, lab: Lab, run: Run, say: Say) -> RunResult:
        """Make one run. Raises LabError."""
        running = Measurement(run.way, lab.spec)
        way, image = WAYS[run.way], self._images.get(run.data, self._usual)
        images.warm(image.path)
        images.warm(self._stream.path)
        ballast.touch(self._needed)
        with NativeHosts(lab, self._folder, way, image, self._stream, self._meter, self._writes) as hosts:
            way.run(hosts)
        return running.result(hosts.figures, self.versions)
