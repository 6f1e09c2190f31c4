"""Predict how long migrations take, from models that are fitted to runs: one for each way with enough cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lab.errors import LabError
from lab.measure.way import Family
from lab.measure.ways import WAYS
from lab.model.fit import LEAST_CELLS
from lab.model.job import Job, Model, measured
from lab.model.plugin import fit_plugin
from lab.model.speed import Hosts
from lab.model.tool import fit_tool
from lab.report.dataset import Dataset


@dataclass(frozen=True)
class Answer:
    """A prediction. `beyond`: the quantities that are outside the runs' range. `unbounded`: `seconds` is a lower
    bound."""

    seconds: float
    beyond: list[str]
    unbounded: bool


def fit(datasets: Sequence[Dataset], hosts: Hosts) -> list[Model]:
    """Return a model for each way that has enough cells; guests may differ, as their sizes are part of the model.

    `hosts` are those that the runs were measured on. Raises LabError if no way has enough.
    """
    found = []
    for way, info in WAYS.items():
        cells = measured(datasets, way)
        if len(cells) >= LEAST_CELLS:
            plugin = info.family is Family.PLUGIN
            found.append(fit_plugin(way, cells, hosts) if plugin else fit_tool(way, cells))
    if not found:
        raise LabError(
            f"there are too few runs for a model: one way needs at least {LEAST_CELLS} cells",
            hint="xenlab experiment quick",
        )
    return found


def too_few(datasets: Sequence[Dataset]) -> dict[str, int]:
    """Return the number of cells of each way that has some, but too few for a model."""
    known = {way: len(measured(datasets, way)) for way in WAYS}
    return {way: cells for way, cells in known.items() if 0 < cells < LEAST_CELLS}


def site(model: Model, job: Job, hosts: Hosts, guests: int, together: int) -> Answer:
    """Predict the time for `guests` jobs over one link, at most `together` at a time, each on two hosts of its own.

    The jobs share the link evenly; the rest of each job overlaps with the others' sending.
    """
    together = min(together, guests)
    share = replace(job, rate=job.rate / together if job.rate else None)
    seconds = model.time(share, hosts) * -(-guests // together)
    return Answer(seconds, model.beyond(share), model.unbounded(share))
