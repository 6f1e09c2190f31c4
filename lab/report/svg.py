"""Charts as SVG: in the colours of the page, by its CSS variables, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from lab.report.chart import SEGMENTS, STYLES, Bars, Chart, Lines, Series, Strips, decades, ticks
from lab.report.marker import marker

_WIDE, _HIGH = 860, 420
_LEFT, _TOP, _BOTTOM = 62, 22, 52
_ROW, _STRIP, _APART, _LETTER = 40, 52, 17, 7.3  # pixels; the last: a letter's mean width


def draw(chart: Chart) -> str:
    """An <svg> element."""
    if isinstance(chart, Lines):
        return _lines(chart)
    return _bars(chart) if isinstance(chart, Bars) else _strips(chart)


def variables(dark: bool) -> str:
    """The CSS variables that the drawings use."""
    ways = [f"--way-{_slug(key)}:{style.dark if dark else style.colour}" for key, style in STYLES.items()]
    parts = [f"--part-{number}:{each[1] if dark else each[0]}" for number, each in enumerate(SEGMENTS)]
    return ";".join([*ways, *parts])


def _slug(key: str) -> str:
    return key.replace("+", "-and-")


def _colour(key: str) -> str:
    return f"var(--way-{_slug(key)}, var(--muted))" if key in STYLES else "var(--muted)"


def _svg(width: float, height: float, title: str, body: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img"'
    return f'{head} aria-label="{escape(title)}">{"".join(body)}</svg>'


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "", more: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}{more}>{escape(text)}</text>'


# -- lines -----------------------------------------------------------------------------------------


def _lines(chart: Lines) -> str:
    values = [y for each in chart.series for _, y in each.points] + [y for y, _ in chart.levels]
    values += [most for each in chart.series for _, _, most in each.bars]
    xs = sorted({x for each in chart.series for x, _ in each.points} or {0.0})
    right = max([_LETTER * len(each.name) for each in chart.series], default=0) + 34
    width, height = _WIDE - _LEFT - right, _HIGH - _TOP - _BOTTOM
    span = xs[-1] - xs[0] or 1.0
    floor, end = _TOP + height, _LEFT + width

    def across(x: float) -> float:
        return _LEFT + (x - xs[0]) / span * width

    up, marks = _scale(values or [1.0], height, chart.log)
    body = []
    for mark in marks:
        body.append(_line("grid", _LEFT, up(mark), end, up(mark)))
        body.append(_text(_LEFT - 9, up(mark) + 4, f"{mark:g}", "end", "tick"))
    for x in xs if len(xs) <= 14 else ticks(xs[-1])[:-1]:
        body.append(_line("tickmark", across(x), floor, across(x), floor + 5))
        body.append(_text(across(x), floor + 19, f"{x:g}", "middle", "tick"))
    body.append(_text(_LEFT + width / 2, _HIGH - 8, chart.x, "middle", "axis"))
    turn = f' transform="rotate(-90 16 {_TOP + height / 2})"'
    body.append(_text(16, _TOP + height / 2, chart.y, "middle", "axis", turn))
    body += [_line("level", _LEFT, up(y), end, up(y)) for y, _ in chart.levels]
    for each in chart.series:
        body += _serie(each, across, up)
    return _svg(_WIDE, _HIGH, chart.title, body + _names(chart, up, end))


def _scale(values: Sequence[float], height: float, log: bool) -> tuple[Callable[[float], float], list[float]]:
    """Pixels from the top for a value, and the marks of the axis."""
    positive = [value for value in values if value > 0]
    if log and positive:
        marks = decades(min(positive), max(positive))
        low, high = math.log10(marks[0]), math.log10(marks[-1])
        return lambda v: _TOP + height * (1 - (math.log10(max(v, marks[0])) - low) / (high - low)), marks
    marks = ticks(max(values))
    return lambda v: _TOP + height * (1 - v / marks[-1]), marks


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _serie(each: Series, across: Callable[[float], float], up: Callable[[float], float]) -> list[str]:
    style, colour = each.style, _colour(each.key)
    dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
    points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in each.points)
    pen = f'fill="none" stroke="{colour}" stroke-width="{style.width}" stroke-linejoin="round"{dash}'
    parts = [f'<polyline points="{points}" {pen}/>']
    for x, least, most in each.bars:
        ends = f'x1="{across(x):.1f}" x2="{across(x):.1f}" y1="{up(least):.1f}" y2="{up(most):.1f}"'
        parts.append(f'<line {ends} stroke="{colour}" stroke-width="1.2"/>')
    for x, y in each.points:
        tip = f"<title>{escape(each.name)}, {x:g}: {y:.3g}</title>"
        shape = marker(style.marker, across(x), up(y))
        parts.append(f'<g fill="{colour}" stroke="{colour}">{shape}{tip}</g>')
    return parts


def _names(chart: Lines, up: Callable[[float], float], at: float) -> list[str]:
    """The name of each line at its end, and of each level, moved apart where they would meet."""
    drawn = [each for each in chart.series if each.points]
    wanted = [(up(each.points[-1][1]), number) for number, each in enumerate(drawn)]
    wanted += [(up(y), len(drawn) + number) for number, (y, _) in enumerate(chart.levels)]
    wanted.sort()
    places = [y for y, _ in wanted]
    for _ in range(200):
        for number in range(len(places) - 1):
            if (gap := _APART - (places[number + 1] - places[number])) > 0:
                places[number] -= gap / 2
                places[number + 1] += gap / 2
        places = [min(max(place, _TOP), _HIGH - _BOTTOM) for place in places]
    parts = []
    for (y, number), place in zip(wanted, places, strict=True):
        parts.append(f'<path class="leader" d="M{at + 6:.1f} {y:.1f}L{at + 12:.1f} {place:.1f}"/>')
        if number < len(drawn):
            each = drawn[number]
            colour = _colour(each.key)
            parts.append(f'<g fill="{colour}" stroke="{colour}">{marker(each.style.marker, at + 19, place, 4)}</g>')
            parts.append(_text(at + 28, place + 4, each.name, kind="name"))
        else:
            parts.append(_text(at + 28, place + 4, chart.levels[number - len(drawn)][1], kind="levelname"))
    return parts


# -- strips ----------------------------------------------------------------------------------------


def _strips(chart: Strips) -> str:
    label = max([_LETTER * len(each.name) for each in chart.series] + [60]) + 30
    width = _WIDE - label - 60
    last = ticks(max([x for each in chart.series for x, _ in each.points] or [1]))
    most = ticks(max([y for each in chart.series for _, y in each.points] or [1]), 3)[-1]
    floor = _STRIP * len(chart.series) + 10
    body = []
    for mark in last:
        x = label + mark / last[-1] * width
        body.append(_line("grid", x, 8, x, floor))
        body.append(_text(x, floor + 17, f"{mark:g}", "middle", "tick"))
    for number, each in enumerate(chart.series):
        base, colour = _STRIP * (number + 1) + 2, _colour(each.key)
        shape = marker(each.style.marker, label - 14, base - 13, 4)
        body.append(f'<g fill="{colour}" stroke="{colour}">{shape}</g>')
        body.append(_text(label - 26, base - 9, each.name, "end", "label"))
        steps = []
        at = 0.0
        for x, y in each.points:  # what was carried until then
            height = base - y / most * (_STRIP - 12)
            steps += [f"{label + each_x / last[-1] * width:.1f},{height:.1f}" for each_x in (at, x)]
            at = x
        outline = " ".join([f"{label},{base}", *steps, f"{label + at / last[-1] * width:.1f},{base}"])
        pen = f'fill="{colour}" fill-opacity=".28" stroke="{colour}" stroke-width="1.2"'
        body.append(f'<polygon points="{outline}" {pen}/>')
        body.append(_line("grid", label, base, label + width, base))
        body.append(_text(label + width + 8, base - _STRIP + 18, f"{most:g}", kind="tick"))
    body.append(_text(label + width / 2, floor + 38, f"{chart.x}; height: {chart.y}", "middle", "axis"))
    return _svg(_WIDE, floor + 46, chart.title, body)


# -- bars ------------------------------------------------------------------------------------------

_HATCHES = {
    "//": '<path d="M-1 1L1 -1M0 7L7 0M6 8L8 6" stroke-width="1.4"/>',
    "\\\\": '<path d="M-1 6L1 8M0 0L7 7M6 -1L8 1" stroke-width="1.4"/>',
    "xx": '<path d="M0 0L7 7M0 7L7 0" stroke-width="1.1"/>',
    "..": '<circle cx="2" cy="2" r="1.2"/><circle cx="5.5" cy="5.5" r="1.2"/>',
    "--": '<path d="M0 2H7M0 5.5H7" stroke-width="1.2"/>',
    "||": '<path d="M2 0V7M5.5 0V7" stroke-width="1.2"/>',
}


def hatchings() -> str:
    """The fills of segments: <pattern> elements, once a page."""
    parts = []
    for number, (_, _, hatch) in enumerate(SEGMENTS):
        lines = f'<g stroke="var(--page)" fill="var(--page)">{_HATCHES[hatch]}</g>' if hatch else ""
        ground = f'<rect width="7" height="7" fill="var(--part-{number})"/>'
        head = f'<pattern id="part-{number}" width="7" height="7" patternUnits="userSpaceOnUse">'
        parts.append(f"{head}{ground}{lines}</pattern>")
    return "".join(parts)


def _bars(chart: Bars) -> str:
    segments = chart.segments
    named = len(segments) > 1
    top = 34 if named else 8
    label = max([_LETTER * len(name) for name, _ in chart.rows] + [60]) + 16
    width = _WIDE - label - 92
    most = max([sum(parts.values()) for _, parts in chart.rows] or [1]) or 1
    height = top + _ROW * len(chart.rows) + 44
    body = []
    at = label
    for number, name in enumerate(segments if named else []):
        body.append(f'<rect x="{at:.1f}" y="6" width="15" height="15" rx="3" fill="{_fill(number)}"/>')
        body.append(_text(at + 21, 18, name, kind="legend"))
        at += 40 + _LETTER * len(name)
    marks = ticks(most, 5)
    scale = width / marks[-1]
    floor = top + _ROW * len(chart.rows)
    for mark in marks:
        x = label + mark * scale
        body.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{floor}"/>')
        body.append(_text(x, floor + 17, f"{mark:g}", "middle", "tick"))
    body.append(_text(label + width / 2, height - 6, chart.x, "middle", "axis"))
    for row, (name, parts) in enumerate(chart.rows):
        y, x = top + _ROW * row + 8, label
        body.append(_text(label - 12, y + 17, name, "end", "label"))
        for number, segment in enumerate(segments):
            if wide := parts.get(segment, 0) * scale:
                tip = f"<title>{escape(name)}, {escape(segment)}: {parts[segment]:.3g} {chart.unit}</title>"
                size = f'width="{max(wide - 1, 0.8):.1f}" height="24" rx="2"'
                body.append(f'<rect x="{x:.1f}" y="{y}" {size} fill="{_fill(number)}">{tip}</rect>')
                x += wide
        body.append(_text(x + 8, y + 17, f"{_short(sum(parts.values()))} {chart.unit}", kind="value"))
    return _svg(_WIDE, height, chart.title, body)


def _fill(segment: int) -> str:
    return f"url(#part-{segment % len(SEGMENTS)})"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
