"""Charts as SVG and PNG, the same bytes for the same chart and version of matplotlib: no dates, no random ids."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import matplotlib
import matplotlib.style

from lab.measure.ways import WAYS
from lab.report.chart import PLAIN, SEGMENTS, TOGETHER, Chart
from lab.report.draw import GRID, GROUND, INK, MUTED, draw

#: Colours of charts, and the CSS variables of a page that take their place: page.css defines the first four,
#: `variables` the others.
_PAGE = {INK: "--ink", MUTED: "--muted", GRID: "--line", GROUND: "--card"}
#: Colours on a white page and, of the same thing, on a black one.
_STYLES = (PLAIN, TOGETHER, *(way.style for way in WAYS.values()))
_DARK = {each.colour: each.dark for each in _STYLES} | {each.colour: each.dark for each in SEGMENTS}
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_FONT = "DejaVu Sans"  # part of matplotlib, so text has the same size everywhere
_FAMILY = re.compile(r"font-family: [^;]*; ?")
_DECIMALS = re.compile(r"\d+\.\d{2,}")
_BLANKS = re.compile(r"(?<=[A-Z])\s+|\s+(?=[A-Z])")
_GEOMETRY = ("d", "x", "y", "width", "height", "transform")
_SETTINGS = {
    "font.family": [_FONT],
    "font.size": 9,
    "svg.fonttype": "none",
    "hatch.linewidth": 0.8,
    "lines.scale_dashes": False,
}


def write(chart: Chart, path: Path) -> None:
    """Write `chart` to `path` in its light colours, as .svg or .png by the name's end."""
    path.write_bytes(_render(chart, path.suffix[1:], titled=True)[0])


def inline(chart: Chart) -> str:
    """Return `chart` as an <svg> element for a page, in the page's colours, with tool tips."""
    data, tips = _render(chart, "svg", titled=False)
    root = ElementTree.fromstring(data)
    used = set(re.findall(rb"#([\w-]+)", data))
    (made,) = _for_page(root, tips, {name.decode() for name in used})
    made.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": chart.title}
    return ElementTree.tostring(made, encoding="unicode")


def _for_page(element: Element, tips: Mapping[str, str], used: set[str]) -> list[Element]:
    """Return the elements that a page gets for `element`: with tool tips, in the page's colours, without groups
    that have no effect, ids that nothing refers to (`used` has the others), and invisible decimals."""
    children = [each for child in element for each in _for_page(child, tips, used)]
    tag, name = _local(element.tag), element.get("id", "")
    if tag in ("metadata", "style") or (tag in ("g", "defs") and not children):
        return []
    made = Element(tag)
    made.text = element.text if tag == "text" else None
    for key, value in element.items():
        if key in ("style", "fill"):  # an attribute `fill` cannot refer to a variable
            made.set("style", _page_style(value if key == "style" else f"fill: {value}"))
        elif key in _GEOMETRY:
            if "rotate(-0 " not in value:
                text = _DECIMALS.sub(lambda match: f"{float(match[0]):.1f}", value)
                made.set(key, _BLANKS.sub("", text).strip())
        elif key != "id" or name in used:
            made.set(_local(key), value)
    if name in tips:
        SubElement(made, "title").text = tips[name]
    elif tag == "g" and not made.attrib:
        return children
    made.extend(children)
    return [made]


def _page_style(style: str) -> str:
    """Return `style` with the page's colours, and without a font family; matplotlib 3.6 needs one in `font`."""
    coloured = _COLOUR.sub(lambda match: f"var({_variable(match[0])})", style)
    return _FAMILY.sub("", coloured).replace(f"'{_FONT}'", "sans-serif")


def _local(name: str) -> str:
    """Return `name` without its XML namespace, which HTML does not use."""
    return name.rpartition("}")[2]


def variables(dark: bool) -> str:
    """Return the CSS definitions of the variables that inline charts use for their colours."""
    return ";".join(f"{_variable(light)}:{black if dark else light}" for light, black in _DARK.items())


def _variable(colour: str) -> str:
    return _PAGE.get(colour) or f"--c{colour[1:]}"


def _render(chart: Chart, kind: str, titled: bool) -> tuple[bytes, dict[str, str]]:
    """Return the bytes of `chart` as `svg` or `png`, and its tool tips."""
    with matplotlib.style.context(["default", {**_SETTINGS, "svg.hashsalt": chart.name}]):
        drawing, out = draw(chart, titled), io.BytesIO()
        absent = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        drawing.figure.savefig(out, format=kind, dpi=150, metadata=absent)
    return out.getvalue(), drawing.tips
