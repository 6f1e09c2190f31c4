"""Make self-contained HTML pages from Jinja2 templates; values are escaped.

A template extends `base.html` of this folder, which has the style, light or dark as the reader's system is, and may
import the macros of `parts.html`.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_HERE = Path(__file__).resolve().parent


def render(template: Path, **values: object) -> str:
    """Return the page that the file `template` makes of `values`: of each only what is `markupsafe.Markup` is taken
    for HTML. Raises jinja2.TemplateError if the template needs another value."""
    loader = FileSystemLoader([template.parent, _HERE])
    pages = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return pages.get_template(template.name).render(values)
