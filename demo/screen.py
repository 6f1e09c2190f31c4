"""The demo's terminal output: what is moved and where, a bar for each phase, one table at the end.

On a terminal the bars move; a file or a pipe gets one line for each finished phase. The table fits 80 columns,
and has a picture of the times if there is room for one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from demo import seconds, size
from demo.bench import Outcome
from demo.image import Image
from demo.wire import Proof
from demo.world import World

_PICTURE = 20  # columns
_ROOM = 100  # columns from which on there is a picture
GOOD, BAD, FAINT, OURS = "green", "bold red", "dim", "bold cyan"


class _Bar:
    """A progress bar, with the rate of the last seconds."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task
        self._started = time.monotonic()
        self._last: list[tuple[float, int]] = []

    def update(self, done: int, wire: int) -> None:
        """Show that `done` bytes are done, and that the link carried `wire` bytes so far."""
        now = time.monotonic()
        self._last = [entry for entry in self._last if entry[0] > now - 2] + [(now, wire)]
        self._show(done, wire - self._last[0][1], now - self._last[0][0])

    def finish(self, done: int, wire: int) -> None:
        """Show the end, with the mean rate."""
        self._show(done, wire, time.monotonic() - self._started)

    def _show(self, done: int, carried: int, span: float) -> None:
        rate = carried * 8 / span / 1e6 if span > 0.3 else 0.0
        text = f"{rate:.0f} Mbit/s" if rate >= 1 else ""
        done = min(done, int(self._progress.tasks[self._task].total or 0))
        self._progress.update(self._task, completed=done, amount=size(done), rate=text)


class Terminal:
    """The console of a run (a `hosts.Screen`)."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)

    def say(self, text: str, style: str = FAINT) -> None:
        """Print one line."""
        self.console.print(Padding(Text(text, style), (0, 2), expand=False))

    def title(self, link: str) -> None:
        """Print the title."""
        words = Text.assemble(
            ("xenplugin", OURS),
            f"  a guest's disk over a long link\n{link}\n",
            ("one image, four ways, each measured and checked alike", FAINT),
        )
        self.console.print()
        self.console.print(Panel(words, box=box.ROUNDED, border_style="cyan", expand=False, padding=(0, 2)))

    def facts(self, image: Image, world: World) -> None:
        """Print what is moved, and between which hosts."""
        used = f"{image.size / 2**30:.0f} GiB, {size(image.allocated)} in use"
        self.console.print(f"  image  {image.content} on ext4, {used}\n  hosts  {world.kind}\n")

    def head(self, outcome: Outcome) -> None:
        """Print the head of a way."""
        self.console.print(Text.assemble((f"  {outcome.title}", "bold"), ("  " + outcome.words, FAINT)))
        if outcome.left_out:
            self.say(f"  left out: {outcome.left_out}", "yellow")

    @contextmanager
    def bar(self, name: str, total: int) -> Iterator[_Bar]:
        """Show a bar while the block runs; it stays, full, afterwards."""
        columns = (
            TextColumn("    {task.description:<11}"),
            BarColumn(30, style="bright_black", complete_style="cyan", finished_style="green"),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[amount]:>7}", style=FAINT),
            TextColumn("{task.fields[rate]:>11}", style=FAINT),
            TimeElapsedColumn(),
        )
        moving = self.console.is_terminal
        started = time.perf_counter()
        with Progress(*columns, console=self.console, disable=not moving, refresh_per_second=8) as progress:
            yield _Bar(progress, progress.add_task(name, total=total, amount="", rate=""))
        if not moving:
            self.say(f"  {name:<12} {seconds(time.perf_counter() - started):>8}", "")

    def table(self, outcomes: list[Outcome], proof: Proof) -> None:
        """Print the table of all ways."""
        roomy = self.console.width >= _ROOM
        table = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0))
        table.add_column("way", no_wrap=True, min_width=17)
        table.add_column("time", justify="right", no_wrap=True, min_width=7)
        table.add_column("sooner", justify="right", no_wrap=True, min_width=6)
        if roomy:
            table.add_column("", no_wrap=True, min_width=_PICTURE)
        table.add_column("wire", justify="right", no_wrap=True, min_width=7)
        table.add_column("CPU s a+b", justify="right", no_wrap=True, min_width=9)
        table.add_column("sha256", no_wrap=True, min_width=7)
        table.add_column("readable", no_wrap=True, min_width=8)
        run = [outcome for outcome in outcomes if not outcome.left_out]
        slowest = max((outcome.seconds for outcome in run), default=1.0)
        for outcome in run:
            table.add_row(*_cells(outcome, run[0], slowest, roomy))
        blank = [""] * (6 if roomy else 5)
        table.add_row(Text("plain TCP (proof)", FAINT), *blank, _readable_plain(proof))
        words = Padding(
            Text("sooner: than the first line; a sends, b receives; readable: on the wire", FAINT), (0, 1)
        )
        self.console.print(Padding(Group(Text(), table, words), (0, 1), expand=False))
        self.console.print()


def sooner(outcome: Outcome, first: Outcome) -> str:
    """Return how many times sooner than the first way, `6.2 x`; nothing for the first itself and for extras."""
    if outcome is first or outcome.extra:
        return ""
    return f"{first.seconds / outcome.seconds:.1f} x"


def readable(outcome: Outcome) -> tuple[str, bool | None]:
    """Return what can be read in the capture, and whether that is good (None: unknown)."""
    finding = outcome.finding
    if finding is None:
        return "?", None
    if finding.hits:
        return "SECRETS", False
    if outcome.unrecorded or not finding.complete:
        return "unsure", None
    return ("nothing", True) if finding.secret else ("patterns", False)


def _short(value: float, below: int = 10) -> str:
    return f"{value:.1f}" if value < below - 0.05 else f"{value:.0f}"


def _readable_plain(proof: Proof) -> Text:
    if proof.missed:
        return Text(f"missed: {', '.join(sorted(proof.missed))}", BAD)
    return Text("all of it", BAD)


def _cells(outcome: Outcome, first: Outcome, slowest: float, roomy: bool) -> list[Text]:
    style = OURS if outcome.ours else ""
    words, good = readable(outcome)
    traffic = outcome.traffic
    picture = []
    if roomy:
        eighths = max(1, round(outcome.seconds / slowest * _PICTURE * 8))
        picture = [Text("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip(), style or "bright_black")]
    return [
        Text(outcome.title, style),
        Text(f"{_short(outcome.seconds, 100)} s", style),
        Text(sooner(outcome, first), style),
        *picture,
        Text(size(traffic.wire_bytes) if traffic else "-", style),
        Text(f"{_short(outcome.cpu_here)} + {_short(outcome.cpu_there)}", style),
        Text("same", GOOD) if outcome.whole else Text("DIFFERS", BAD),
        Text(words, FAINT if good is None else GOOD if good else BAD),
    ]
