"""demo/report.html: the whole run on one page that needs nothing else and can be kept and mailed.

Numbers, what was checked, under which conditions, and the command that repeats it. The prose is in page.html,
the looks (light or dark, as the reader's system is) in page.css; here is only what changes from run to run.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from demo import chart, facts, seconds, size
from demo.bench import Outcome
from demo.image import Image
from demo.screen import readable, sooner
from demo.wire import Proof
from netem.profile import Profile
from netem.units import format_rate, format_time

_HERE = Path(__file__).resolve().parent
_NUMBERS = {2: "Two", 3: "Three", 4: "Four", 5: "Five"}
_RATES = {"gbit": "Gbit/s", "mbit": "Mbit/s", "kbit": "kbit/s", "bit": "bit/s"}


def link_words(profile: Profile) -> str:
    """The link for people: `120 ms round trip, 200 Mbit/s`."""
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
    """Write report.html and, with matplotlib, times.png into `folder`; the paths written."""
    run = [outcome for outcome in outcomes if not outcome.left_out]
    missing = [f"{outcome.title} was left out: {outcome.left_out}" for outcome in outcomes if outcome.left_out]
    used = f"{size(image.allocated)} in use of {image.size / 2**30:.0f} GiB"
    parts = {
        "The link": _link(profile),
        "The machine": facts.host(),
        "Programs": facts.programs(),
        "The run": _run(image, world),
    }
    parts |= {f"{each.title}, in its own words": _own_words(each.detail) for each in run if each.detail}
    page = Template((_HERE / "page.html").read_text(encoding="utf-8")).substitute(
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        claim=_claim(run),
        what=escape(f"{image.content} on ext4, {used},"),
        link=escape(link_words(profile)),
        chart=chart.svg(run),
        ways="".join(_way(outcome, run[0]) for outcome in run) + _control(proof),
        canaries=_NUMBERS.get(len(image.canaries), str(len(image.canaries))),
        secrecy=_secrecy(run, proof),
        punctuality=_punctuality(run),
        doubts=_items(facts.doubts(run), "doubts"),
        conditions="".join(f"<div><h3>{escape(title)}</h3>{_pairs(pairs)}</div>" for title, pairs in parts.items()),
        command=escape(f"DEMO_RTT={format_time(profile.rtt)} DEMO_RATE={format_rate(profile.rate_bits)} make demo"),
        missing=_items(missing, "missing"),
    )
    report, picture = folder / "report.html", folder / "times.png"
    report.write_text(page, encoding="utf-8")
    return [report, picture] if chart.png(run, link_words(profile), picture) else [report]


def _claim(run: list[Outcome]) -> str:
    ours = next((outcome for outcome in run if outcome.key == "xenplugin"), None)
    if ours is None or ours is run[0]:
        return "A disk image over a long link"
    times = sooner(ours, run[0]).removesuffix(" x")
    return f"<strong>{times}</strong> times sooner than {escape(run[0].title)}"


def _way(outcome: Outcome, first: Outcome) -> str:
    words, good = readable(outcome)
    wire = size(outcome.traffic.wire_bytes) if outcome.traffic else "-"
    numbers = [
        seconds(outcome.seconds),
        sooner(outcome, first),
        wire,
        f"{outcome.cpu_here:.1f} + {outcome.cpu_there:.1f} s",
    ]
    return (
        f'<tr class="{"ours" if outcome.ours else ""}">'
        f'<th scope="row">{escape(outcome.title)}<small>{escape(outcome.words)}</small></th>'
        + "".join(f'<td class="n">{text}</td>' for text in numbers)
        + _verdict("same" if outcome.whole else "differs", outcome.whole)
        + _verdict(words, good)
        + "</tr>"
    )


def _control(proof: Proof) -> str:
    text = f"missed: {', '.join(sorted(proof.missed))}" if proof.missed else "all of it"
    return (
        '<tr><th scope="row">plain TCP<small>pieces of the image, to prove the check</small></th>'
        f'<td colspan="5"></td>{_verdict(text, False)}</tr>'
    )


def _verdict(text: str, good: bool | None) -> str:
    kind, sign = {True: ("good", "✓"), False: ("bad", "✗"), None: ("unknown", "·")}[good]
    return f'<td class="{kind}">{sign} {escape(text)}</td>'


def _secrecy(run: list[Outcome], proof: Proof) -> str:
    heads = (
        "packets",
        "payload",
        "kinds (packets)",
        "texts found as",
        "noise",
        "worst chi²",
        "in the clear",
        "missed",
    )
    checked = [(outcome.title, outcome.finding, outcome.unrecorded) for outcome in run]
    rows = []
    for title, finding, lost in [*checked, ("plain TCP", proof.finding, 0)]:
        if finding is None:
            continue
        cells = [
            f"{finding.packets}",
            size(finding.payload_bytes),
            ", ".join(f"{kind} ({tally[0]})" for kind, tally in sorted(finding.kinds.items())),
            ", ".join(sorted(finding.spellings)) or "nothing",
            f"{finding.judged - finding.not_noise}/{finding.judged}",
            f"{finding.worst:.0f}",
            size(finding.clear_bytes),
            f"{finding.missing_bytes} B" + (f" and {lost} packets" if lost else ""),
        ]
        rows.append(_row(title, cells))
    return _grid(heads, rows)


def _row(title: str, cells: list[str]) -> str:
    return f'<tr><th scope="row">{escape(title)}</th>' + "".join(f"<td>{escape(c)}</td>" for c in cells) + "</tr>"


def _grid(heads: Sequence[str], rows: list[str]) -> str:
    head = "".join(f'<th scope="col">{text}</th>' for text in ("way", *heads))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _link(profile: Profile) -> dict[str, str]:
    return profile.texts() | {"queue": size(profile.queue_bytes) if profile.queue_bytes else "none"}


def _run(image: Image, world: str) -> dict[str, str]:
    return {
        "hosts": world,
        "date": datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
        "sha256 of the image": image.sha256,
    }


def _punctuality(run: list[Outcome]) -> str:
    """How far each way's link was from what it should have been."""
    rows = []
    for outcome in run:
        traffic = outcome.traffic
        if traffic is None:
            continue
        late = [f"{value * 1000:.1f} ms" for value in (traffic.late_p50, traffic.late_p99) if value is not None]
        rows.append(_row(outcome.title, [*(late or ["-", "-"]), str(traffic.dropped), f"{outcome.steal:.1%}"]))
    return _grid(("half of the packets late by", "1 % late by more than", "dropped", "CPU time stolen"), rows)


def _own_words(detail: dict[str, Any]) -> dict[str, str]:
    """What xenplugin's result says of itself; what is shown elsewhere is left out."""
    elsewhere = ("seconds", "phases", "sha256", "bytes_image")
    return {
        key: size(value) if key.startswith("bytes_") else str(value)
        for key, value in detail.items()
        if key not in elsewhere and value is not None
    }


def _pairs(pairs: dict[str, str]) -> str:
    return (
        "<dl>" + "".join(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in pairs.items()) + "</dl>"
    )


def _items(lines: list[str], kind: str) -> str:
    if not lines:
        return ""
    return f'<ul class="{kind}">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>'
