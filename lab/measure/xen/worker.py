"""Does runs on real Xen hosts, which have guests of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab.hosts.interface import Say
from lab.hosts.lifecycle.lab import Lab
from lab.measure.results import Run, RunResult
from lab.measure.ways import WAYS
from lab.measure.xen.hosts import measure


class XenWorker:
    """Makes the runs of a scenario (lab.measure.runner.Worker)."""

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}
        self.disks: dict[int, str] = {}
        self.memory: str | None = None

    @contextmanager
    def around(self) -> Iterator[None]:
        """Nothing has to be prepared."""
        yield

    def run(self, lab: Lab, run: Run, say: Say) -> RunResult:
        """Make one run. Raises LabError."""
        return measure(WAYS[run.way], lab, say)
