"""The times as pictures: an SVG for the page, a PNG for everything else.

One bar a way, cut into its phases. Colours are Okabe and Ito's, which all kinds of eyes tell apart; each phase
has its own lightness or hatching too, and is written out under its bar, so that nothing hangs on colour.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from demo import seconds
from demo.bench import Outcome
from demo.screen import sooner

_COLOURS = {
    "compress": ("#E69F00", "//"),
    "encrypt": ("#56B4E9", ".."),
    "scp": ("#0072B2", ""),
    "decrypt": ("#CC79A7", "xx"),
    "decompress": ("#D55E00", "\\\\"),
}
_PLAIN = ("#8A8F98", "")
_OURS = ("#009E73", "")
_LABEL, _WIDTH, _END, _ROW = 168, 880, 128, 58  # of the SVG


def _look(outcome: Outcome, phase: str) -> tuple[str, str]:
    return _COLOURS.get(phase) or (_OURS if outcome.ours else _PLAIN)


def phases_in_words(outcome: Outcome) -> str:
    """`compress 21.3 s, encrypt 0.6 s, ...`; of one that has a single phase, what it reported itself."""
    own = outcome.detail.get("phases")
    phases = list(own.items()) if isinstance(own, dict) and own else outcome.phases
    if len(phases) < 2:
        return outcome.words
    return ", ".join(f"{name} {seconds(float(taken))}" for name, taken in phases)


def svg(outcomes: list[Outcome]) -> str:
    """The bars as SVG in the page's own colours (it needs the page's CSS variables)."""
    longest = max(outcome.seconds for outcome in outcomes)
    scale = (_WIDTH - _LABEL - _END) / longest
    rows = []
    for number, outcome in enumerate(outcomes):
        top = number * _ROW
        ours = outcome.ours
        label = escape(outcome.title)
        weight = ' class="ours"' if ours else ""
        rows.append(f'<text x="{_LABEL - 14}" y="{top + 22}" text-anchor="end"{weight}>{label}</text>')
        at = float(_LABEL)
        for phase, taken in outcome.phases:
            wide = max(taken * scale, 1.5)
            tip = escape(f"{phase}: {seconds(taken)}")
            rows.append(
                f'<rect x="{at:.1f}" y="{top + 6}" width="{max(wide - 1, 1):.1f}" height="24" rx="3" '
                f'fill="{_look(outcome, phase)[0]}"><title>{tip}</title></rect>'
            )
            at += wide
        gain = sooner(outcome, outcomes[0])
        gain = f"  {gain}" if gain else ""
        rows.append(
            f'<text x="{at + 10:.1f}" y="{top + 23}"><tspan class="time">{seconds(outcome.seconds)}</tspan>'
            f'<tspan class="gain">{gain}</tspan></text>'
        )
        rows.append(f'<text class="small" x="{_LABEL}" y="{top + 46}">{escape(phases_in_words(outcome))}</text>')
    height = len(outcomes) * _ROW
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Time of each way">{"".join(rows)}</svg>'


def png(outcomes: list[Outcome], link: str, path: Path) -> bool:
    """Write the bars to `path`; False if matplotlib is not installed."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return False
    figure, axes = pyplot.subplots(figsize=(9, 0.9 + 0.72 * len(outcomes)), layout="constrained")
    longest = max(outcome.seconds for outcome in outcomes)
    for row, outcome in enumerate(outcomes):
        at = 0.0
        for phase, taken in outcome.phases:
            colour, hatch = _look(outcome, phase)
            axes.barh(row, taken, left=at, height=0.6, color=colour, hatch=hatch, edgecolor="white", lw=1)
            if taken > longest * 0.09 and len(outcome.phases) > 1:
                ground = {"facecolor": "white", "edgecolor": "none", "boxstyle": "round,pad=0.2", "alpha": 0.85}
                axes.text(at + taken / 2, row, phase, ha="center", va="center", fontsize=8, bbox=ground)
            at += taken
        gain = sooner(outcome, outcomes[0])
        text = seconds(outcome.seconds) + (f"   {gain} sooner" if gain else "")
        weight = "bold" if outcome.ours else "normal"
        axes.text(at + longest * 0.012, row, text, va="center", fontsize=10, weight=weight)
    axes.set_yticks(range(len(outcomes)), [outcome.title for outcome in outcomes], fontsize=10)
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.16)
    axes.set_xlabel("seconds until the image is whole at the other end")
    axes.set_title(f"A disk image over a link of {link}", loc="left", fontsize=11)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, dpi=160)
    pyplot.close(figure)
    return True
