"""Write the report: one HTML page that needs no other file, and each figure as SVG, PNG and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lab import pages
from lab.report import image
from lab.report.chart import Chart
from lab.report.claims import Claim, claims
from lab.report.dataset import Dataset
from lab.report.figures import USER_SPACE, Section, sections, user_space

_TEMPLATE = Path(__file__).resolve().parent / "report.html"


@dataclass(frozen=True)
class _Chapter:
    """A section of a dataset, with its heading and the anchor of links to it."""

    anchor: str
    heading: str
    section: Section


@dataclass(frozen=True)
class _Judgement:
    """The claims on a dataset: `rows` by who claims what, then by the link and disk among `places`."""

    name: str
    places: Sequence[str]
    rows: Mapping[tuple[str, str], Mapping[str, Claim]]
    note: str


def write(folder: Path, datasets: Sequence[Dataset], title: str) -> list[Path]:
    """Write index.html and figures/ into `folder`; return the paths."""
    chapters = list(_chapters(datasets))
    images = folder / "figures"
    images.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    page.write_text(_html(datasets, chapters, title), encoding="utf-8")
    charts = (figure.chart for chapter in chapters for figure in chapter.section.figures)
    return [page, *(path for chart in charts for path in _files(chart, images))]


def html(datasets: Sequence[Dataset], title: str) -> str:
    """Return the page."""
    return _html(datasets, list(_chapters(datasets)), title)


def _html(datasets: Sequence[Dataset], chapters: Sequence[_Chapter], title: str) -> str:
    return pages.render(
        _TEMPLATE,
        title=title,
        light=image.variables(dark=False),
        dark=image.variables(dark=True),
        chapters=chapters,
        judgements=[found for dataset in datasets if (found := _judgement(dataset)).rows],
        datasets=datasets,
        draw=lambda chart: Markup(image.inline(chart)),
        judged=_judged,
        counted=_counted,
        properties=_properties,
    )


def _chapters(datasets: Sequence[Dataset]) -> Iterator[_Chapter]:
    for place, dataset in enumerate(datasets):
        for number, section in enumerate(sections(dataset)):
            yield _Chapter(f"set-{place}-{number}", f"{dataset.name}; {section.title}", section)


def _judgement(dataset: Dataset) -> _Judgement:
    rows: dict[tuple[str, str], dict[str, Claim]] = {}
    places: dict[str, None] = {}
    for claim in claims(dataset):
        rows.setdefault((claim.who, claim.says), {})[claim.where] = claim
        places[claim.where] = None
    note = USER_SPACE if any(user_space(dataset, rate) for rate in dataset.rates) else ""
    return _Judgement(dataset.name, list(places), rows, note)


def _judged(claim: Claim) -> Markup:
    """Return what was measured, with a mark if the claim was to be reached."""
    marks = {None: "", True: '<span class="yes">✓</span> ', False: '<span class="no">✗</span> '}
    return Markup(marks[claim.reached]) + claim.ours


def _counted(dataset: Dataset) -> str:
    count = sum(map(len, dataset.runs.values()))
    hosts = "network namespaces, the memory generated like xl's" if dataset.native else "real Xen hosts"
    return f"{count} runs on {hosts}; {len(dataset.discarded)} discarded, {len(dataset.doubtful)} doubtful."


def _properties(dataset: Dataset) -> list[tuple[str, str]]:
    """Return each property of the hosts and programs with all values that it had."""
    known: dict[str, dict[str, None]] = {}
    hosts: list[Mapping[str, Any]] = [asdict(host) for host in dataset.hosts]
    for values in [*hosts, *dataset.versions]:
        for key, value in values.items():
            if key != "steal":  # it is of single runs
                known.setdefault(key, {})[f"{value / 2**30:.0f} GiB" if key == "memory" else str(value)] = None
    return [(key, ", ".join(several)) for key, several in known.items()]


def _files(chart: Chart, folder: Path) -> list[Path]:
    """Write `chart` as SVG, PNG and CSV; return the paths."""
    paths = [folder / f"{chart.name}.{kind}" for kind in ("svg", "png", "csv")]
    image.write(chart, paths[0])
    image.write(chart, paths[1])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(chart.table())
    paths[2].write_text(text.getvalue(), encoding="utf-8")
    return paths
