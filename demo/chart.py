"""The times as one chart: a bar for each way, divided into its phases (lab.report.chart)."""

from __future__ import annotations

from demo import seconds
from demo.bench import Outcome
from demo.screen import sooner
from lab.report.chart import Bars

_STEPS = ("compress", "encrypt", "scp", "decrypt", "decompress")


def times(outcomes: list[Outcome], link: str) -> Bars:
    """Return the chart; `link` in words."""
    rows = [(_label(outcome, outcomes[0]), dict(outcome.phases)) for outcome in outcomes]
    title = f"A disk image over a link of {link}"
    return Bars("times", title, "seconds until the image is whole at the other end", rows, order=_STEPS)


def _label(outcome: Outcome, first: Outcome) -> str:
    gain = sooner(outcome, first)
    return f"{outcome.title}, {gain} sooner" if gain else outcome.title


def phases_in_words(outcome: Outcome) -> str:
    """Return `compress 21.3 s, encrypt 0.6 s, ...`; for a single phase the phases that the program reported."""
    own = outcome.detail.get("phases")
    phases = list(own.items()) if isinstance(own, dict) and own else outcome.phases
    return ", ".join(f"{name} {seconds(float(taken))}" for name, taken in phases) if len(phases) > 1 else ""
