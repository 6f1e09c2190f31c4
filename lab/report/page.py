"""One HTML page that holds all: figures as inline SVG, claims, tables, what it was measured on. It asks nobody."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lab.report import image
from lab.report.claims import Claim, claims
from lab.report.data import Dataset
from lab.report.figures import USER_SPACE, Figure, Section, sections, user_space

_LEAD = (
    "A guest moves from one host to another, over ever longer distances: the paper's experiment repeated, and the "
    "same guest moved by xenplugin. Every figure is made from the result files alone."
)
_HERE = Path(__file__).resolve().parent


def write(folder: Path, sets: Sequence[Dataset], title: str) -> list[Path]:
    """Write index.html and figures/ into `folder`; the paths. Without matplotlib there are no PNGs."""
    parts, written, contents = [], [folder / "index.html"], []
    images = folder / "figures"
    images.mkdir(parents=True, exist_ok=True)
    for place, runs in enumerate(sets):
        for number, section in enumerate(sections(runs)):
            name = f"set-{place}-{number}"
            heading = escape(f"{runs.name}; {section.title}")
            contents.append(f'<li><a href="#{name}">{heading}</a></li>')
            parts.append(f'<section id="{name}"><h2>{heading}</h2>{_section(section)}</section>')
            for figure in section.figures:
                written += _files(figure, images)
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{_LEAD}</p>',
        f"<nav><ul>{''.join(contents)}</ul></nav>",
        _claims(sets),
        *parts,
        _about(sets),
    ]
    written[0].write_text(_page(title, body), encoding="utf-8")
    return written


def _page(title: str, body: Sequence[str]) -> str:
    css = (_HERE / "page.css").read_text(encoding="utf-8")
    css = css.replace("LIGHT", image.variables(False)).replace("DARK", image.variables(True))
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title><style>{css}</style>'
    whole = f"<main>{''.join(body)}</main>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{whole}</body></html>\n'


def _section(section: Section) -> str:
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in section.notes)
    return notes + "".join(_figure(figure) for figure in section.figures)


def _figure(figure: Figure) -> str:
    number = f'<span class="number">Figure {figure.number} of the paper. </span>' if figure.number else ""
    table = f"<details><summary>The numbers</summary>{_table(figure.chart.table())}</details>"
    return (
        f'<figure id="{escape(figure.chart.name)}"><h3>{number}{escape(figure.chart.title)}</h3>'
        f"{image.inline(figure.chart)}"
        f"<figcaption>{escape(figure.words)}</figcaption>{table}</figure>"
    )


def _table(rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    def cell(text: str, column: int, tag: str) -> str:
        kind = ' class="number"' if numbers and column else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    made = []
    for row, words in enumerate(rows):
        tag = "td" if row else "th"
        made.append(f"<tr>{''.join(cell(text, column, tag) for column, text in enumerate(words))}</tr>")
    return f'<div class="wide"><table>{"".join(made)}</table></div>'


def _claims(sets: Sequence[Dataset]) -> str:
    """A table for each set."""
    parts = []
    for runs in sets:
        if rows := claims(runs):
            slow = any(user_space(runs, rate) for rate in runs.rates)
            note = f'<p class="note">{escape(USER_SPACE)}</p>' if slow else ""
            parts.append(f"<h3>{escape(runs.name)}</h3>{_judgements(rows)}{note}")
    return f"<h2>What was claimed, what was measured</h2>{''.join(parts)}" if parts else ""


def _judgements(rows: Sequence[Claim]) -> str:
    """A row for each claim, a column for each link and disk."""
    places = list(dict.fromkeys(claim.where for claim in rows))
    made = [f"<tr><th></th><th>claim</th>{''.join(f'<th>{escape(place)}</th>' for place in places)}</tr>"]
    for who, says in dict.fromkeys((claim.who, claim.says) for claim in rows):
        cells = {claim.where: _judged(claim) for claim in rows if (claim.who, claim.says) == (who, says)}
        columns = "".join(f"<td>{cells.get(place, '')}</td>" for place in places)
        made.append(f'<tr><td class="who">{who}</td><td class="says">{escape(says)}</td>{columns}</tr>')
    return f'<div class="wide"><table>{"".join(made)}</table></div>'


def _judged(claim: Claim) -> str:
    marks = {True: '<span class="yes">&#10003;</span> ', False: '<span class="no">&#10007;</span> '}
    return ("" if claim.reached is None else marks[claim.reached]) + escape(claim.ours)


def _about(sets: Sequence[Dataset]) -> str:
    parts = ["<h2>What it was measured on</h2>"]
    for runs in sets:
        count = sum(map(len, runs.runs.values()))
        words = "network namespaces, the memory generated like xl's" if runs.native else "real Xen hosts"
        said = f"{count} runs on {words}; {len(runs.discarded)} discarded, {len(runs.doubtful)} doubtful."
        parts.append(f"<h3>{escape(runs.name)}</h3><p>{escape(said)}</p>")
        known: dict[str, dict[str, None]] = {}
        values: Mapping[str, Any]
        hosts = [{key: value for key, value in vars(host).items() if key != "steal"} for host in runs.hosts]
        for values in [*hosts, *runs.versions]:
            for key, value in values.items():
                known.setdefault(key, {})[_value(key, value)] = None
        rows = [["", ""], *([key, ", ".join(several)] for key, several in known.items())]
        parts.append(_table(rows, numbers=False).replace("<tr><th></th><th></th></tr>", ""))
        for name, lines in (("Discarded runs", runs.discarded), ("Doubtful runs", runs.doubtful)):
            if lines:
                items = "".join(f"<li>{escape(line)}</li>" for line in lines)
                parts.append(f"<details><summary>{name}</summary><ul>{items}</ul></details>")
    return "".join(parts)


def _value(key: str, value: Any) -> str:
    return f"{value / 2**30:.0f} GiB" if key == "memory" and isinstance(value, int) else str(value)


def _files(figure: Figure, folder: Path) -> list[Path]:
    """Write the figure by itself as SVG, PNG and CSV; return the paths."""
    paths = [folder / f"{figure.chart.name}.{kind}" for kind in ("svg", "png", "csv")]
    image.write(figure.chart, paths[0])
    image.write(figure.chart, paths[1])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(figure.chart.table())
    paths[2].write_text(text.getvalue(), encoding="utf-8")
    return paths
