"""demo/report.html: the whole run on one page that needs no other file and can be kept and mailed.

Numbers, what was checked, under which conditions, and the command that repeats it. The text is in page.html, the
style in page.css; here is only what changes from run to run.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from demo import chart, facts, seconds, size
from demo.bench import Outcome
from demo.image import Image
from demo.screen import readable, sooner
from demo.wire import Proof
from lab import pages
from lab.verify.judge.finding import Finding
from netem.profile import Profile
from netem.units import format_rate, format_time

_TEMPLATE = Path(__file__).resolve().parent / "page.html"
_NUMBERS = {2: "Two", 3: "Three", 4: "Four", 5: "Five"}
_RATES = {"gbit": "Gbit/s", "mbit": "Mbit/s", "kbit": "kbit/s", "bit": "bit/s"}
_MARKS = {True: ("good", "✓"), False: ("bad", "✗"), None: ("unknown", "·")}


@dataclass(frozen=True)
class _Cell:
    """A judgement for a table's cell: `kind` is its class, `sign` its mark."""

    text: str
    kind: str
    sign: str


@dataclass(frozen=True)
class _Row:
    """A way in the table of all ways."""

    outcome: Outcome
    numbers: list[str]
    phases: str
    whole: _Cell
    readable: _Cell


def link_words(profile: Profile) -> str:
    """Return the link for people: `120 ms round trip, 200 Mbit/s`."""
    text = format_rate(profile.rate_bits)
    name = next((unit for unit in _RATES if text.endswith(unit)), "")
    rate = f"{text.removesuffix(name)} {_RATES[name]}" if name else "no limit of rate"
    return f"{profile.rtt * 1000:g} ms round trip, {rate}"


def write(
    folder: Path,
    profile: Profile,
    image: Image,
    world: str,
    outcomes: list[Outcome],
    proof: Proof,
) -> list[Path]:
    """Write report.html and times.png into `folder`; return the paths."""
    from lab.report import image as chart_image  # only now: matplotlib takes a second to import

    run = [outcome for outcome in outcomes if not outcome.left_out]
    times = chart.times(run, link_words(profile))
    conditions = {
        "The link": profile.texts() | {"queue": size(profile.queue_bytes) if profile.queue_bytes else "none"},
        "The machine": facts.host(),
        "Programs": facts.versions(),
        "The run": _run(image, world),
    }
    conditions |= {f"{each.title}, as reported": _reported(each.detail) for each in run if each.detail}
    page = pages.render(
        _TEMPLATE,
        title="xenplugin demo",
        light=chart_image.variables(dark=False),
        dark=chart_image.variables(dark=True),
        times=_times_sooner(run),
        first=run[0].title,
        content=f"{image.content} on ext4, {size(image.allocated)} in use of {image.size / 2**30:.0f} GiB,",
        link=link_words(profile),
        chart=Markup(chart_image.inline(times)),
        rows=[_row(outcome, run[0]) for outcome in run],
        proof=f"missed: {', '.join(sorted(proof.missed))}" if proof.missed else "all of it",
        canaries=_NUMBERS.get(len(image.canaries), str(len(image.canaries))),
        secrecy=list(_secrecy(run, proof)),
        punctuality=list(_punctuality(run)),
        doubts=facts.doubts(run),
        conditions=conditions,
        command=f"DEMO_RTT={format_time(profile.rtt)} DEMO_RATE={format_rate(profile.rate_bits)} make demo",
        missing=[f"{each.title} was left out: {each.left_out}" for each in outcomes if each.left_out],
    )
    report, picture = folder / "report.html", folder / "times.png"
    report.write_text(page, encoding="utf-8")
    chart_image.write(times, picture)
    return [report, picture]


def _times_sooner(run: list[Outcome]) -> str:
    """Return how many times sooner than the first way xenplugin was; empty if it was not compared."""
    ours = next((outcome for outcome in run if outcome.key == "xenplugin"), None)
    return sooner(ours, run[0]).removesuffix(" x") if ours else ""


def _row(outcome: Outcome, first: Outcome) -> _Row:
    numbers = [
        seconds(outcome.seconds),
        sooner(outcome, first),
        size(outcome.traffic.wire_bytes) if outcome.traffic else "-",
        f"{outcome.cpu_here:.1f} + {outcome.cpu_there:.1f} s",
    ]
    whole = _Cell("same" if outcome.whole else "differs", *_MARKS[outcome.whole])
    words, good = readable(outcome)
    return _Row(outcome, numbers, chart.phases_in_words(outcome), whole, _Cell(words, *_MARKS[good]))


def _secrecy(run: list[Outcome], proof: Proof) -> Iterator[list[str]]:
    """Yield what the check found in each way's capture."""
    checked: list[tuple[str, Finding | None, int]] = [(each.title, each.finding, each.unrecorded) for each in run]
    for title, finding, lost in [*checked, ("plain TCP", proof.finding, 0)]:
        if finding is not None:
            yield [
                title,
                f"{finding.packets}",
                size(finding.payload_bytes),
                ", ".join(f"{kind} ({tally[0]})" for kind, tally in sorted(finding.kinds.items())),
                ", ".join(sorted(finding.spellings)) or "nothing",
                f"{finding.judged - finding.not_noise}/{finding.judged}",
                f"{finding.worst:.0f}",
                size(finding.clear_bytes),
                f"{finding.missing_bytes} B" + (f" and {lost} packets" if lost else ""),
            ]


def _run(image: Image, world: str) -> dict[str, str]:
    return {
        "hosts": world,
        "date": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
        "sha256 of the image": image.sha256,
    }


def _punctuality(run: list[Outcome]) -> Iterator[list[str]]:
    """Yield how much each way's link differed from what it should have been."""
    for outcome in run:
        if traffic := outcome.traffic:
            late = [f"{value * 1000:.1f} ms" for value in (traffic.late_p50, traffic.late_p99) if value is not None]
            yield [outcome.title, *(late or ["-", "-"]), str(traffic.dropped), f"{outcome.steal:.1%}"]


def _reported(detail: dict[str, Any]) -> dict[str, str]:
    """Return what xenplugin reported and is not shown elsewhere."""
    elsewhere = ("seconds", "phases", "sha256", "bytes_image")
    return {
        key: size(value) if key.startswith("bytes_") else str(value)
        for key, value in detail.items()
        if key not in elsewhere and value is not None
    }
