"""Shows events to a person: a line for each event and, on a terminal, a progress bar."""

from __future__ import annotations

import threading
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from xenplugin import events
from xenplugin.codec.compress import STORE
from xenplugin.results import Estimate, MigrationResult
from xenplugin.ui import estimate_text, units
from xenplugin.ui.time_left import time_left

#: Seconds between the lines of --progress without a terminal.
_LINE_EVERY = 10.0


#: What a guest's migration does in its longer phases.
GUEST_PHASES = {
    "disks": "moving its disks while it runs",
    "memory": "xl moves its memory; disk writes meanwhile are sent as well",
    "stopped": "suspended: moving the rest of its disks",
    "handover": "its disks are complete at the destination; handing over",
}
#: How the verdict of a check that does not pass is shown.
_CHECKED = {"warn": "warning", "refuse": "refused"}


class TextUi:
    """Writes to `out`. `progress`: None shows it on a terminal only, True also elsewhere, False never.
    Thread-safe."""

    def __init__(self, out: TextIO, *, progress: bool | None, quiet: bool, verbose: bool) -> None:
        self._console = Console(file=out, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        moving = self._console.is_terminal if progress is None else progress
        self._moving = moving and self._console.is_terminal and not quiet
        self._lines = bool(progress) and not self._console.is_terminal
        self._quiet = quiet
        self._verbose = verbose
        self._last_line = 0.0
        self._done = "done"
        self._estimate: Estimate | None = None
        self._phase = ""
        self._lock = threading.Lock()

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            self._show(event)

    def close(self) -> None:
        """Remove the progress bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, event: events.Event) -> None:
        if isinstance(event, events.Progress):
            self._progress(event)
        elif isinstance(event, events.Far):
            self._print(f"far side: {event.text}", "yellow")
        elif isinstance(event, events.Notice):
            self._print(event.text, "yellow")
        elif isinstance(event, events.Xl):
            self._print(event.text, "dim")
        elif isinstance(event, events.Checked):
            self._print(f"{_CHECKED.get(event.verdict, event.verdict)}: {event.text}", "yellow")
            if event.hint:
                self._print(f"  {event.hint}")
        elif isinstance(event, events.Failed):
            self.close()
            self._print(f"xenplugin: error: {event.error}", "bold red")
            if event.hint:
                self._print(f"xenplugin: hint: {event.hint}")
        elif self._quiet:
            return
        elif isinstance(event, events.Started):
            self._done = "verified" if event.verb == "verify" else "done"
            target = f" -> {event.target}" if event.target else ""
            self._print(f"{event.image}{target}  ({units.size(event.bytes_image)})", "bold")
        elif isinstance(event, events.Linked):
            self._linked(event)
        elif isinstance(event, events.Estimated):
            self._print(f"  {estimate_text.line(event.estimate)}")
            self._estimate = event.estimate
        elif isinstance(event, events.Phase):
            self._phase = event.name
            if self._verbose:
                self._print(f"phase: {event.name}", "dim")
            if event.name in ("finish", "memory", "stopped", "handover"):
                self.close()
            if event.name in GUEST_PHASES:
                self._print(f"  {GUEST_PHASES[event.name]}")
        elif isinstance(event, events.Finished):
            self.close()
            self._finished(event)

    def _print(self, line: str, style: str = "") -> None:
        # Much of the text comes from elsewhere, such as file names: it must not control the terminal.
        (self._bar.console if self._bar else self._console).print(Text(units.printable(line), style))

    def _linked(self, event: events.Linked) -> None:
        if event.streams:
            streams = f"{event.streams} stream{'s' * (event.streams > 1)}"
            self._print(
                f"  linked to {event.address}, RTT {event.rtt * 1000:.1f} ms, {streams} ({event.congestion})"
            )

    def _progress(self, event: events.Progress) -> None:
        share = min(1.0, event.bytes_done / event.bytes_total) if event.bytes_total else 1.0
        left = self._left(event.seconds, share)
        pace = units.rate(event.bytes_wire / event.seconds) if event.seconds > 0.2 else "..."
        level = "stored" if event.level == STORE else f"zstd {event.level}"
        amount = units.size(event.bytes_done)
        if event.bytes_done <= event.bytes_total or not event.what:
            amount += f" of {units.size(event.bytes_total)}"
        tail = f"{event.what + ' ' if event.what else ''}{amount}  {pace}  {level}"
        remaining = f"{units.seconds(left)} left" if left is not None else ""
        if self._moving:
            if self._bar is None:
                self._bar = Progress(
                    BarColumn(24),
                    TextColumn("{task.percentage:>3.0f} %"),
                    TextColumn("{task.fields[tail]}"),
                    TextColumn("{task.fields[remaining]}", style="dim"),
                    console=self._console,
                    transient=True,
                )
                self._task = self._bar.add_task("", total=1.0, tail="", remaining="")
                self._bar.start()
            assert self._task is not None
            self._bar.update(self._task, completed=share, tail=tail, remaining=remaining)
        elif self._lines and time.monotonic() - self._last_line > _LINE_EVERY:
            self._last_line = time.monotonic()
            self._print(f"{100 * share:3.0f} %  {tail}  {remaining}")

    def _left(self, seconds: float, share: float) -> float | None:
        """Return the seconds left: of the whole with an estimate, of the phase without one."""
        phases = list(self._estimate.phases.items()) if self._estimate is not None else []
        names = [name for name, _ in phases]
        if self._phase not in names:
            return time_left(None, seconds, share)
        place = names.index(self._phase)
        left = time_left(phases[place][1], seconds, share)
        return left and left + sum(expected for _, expected in phases[place + 1 :])

    def _finished(self, event: events.Finished) -> None:
        result = event.result
        disks = result.disks if isinstance(result, MigrationResult) else (result,)
        less = result.bytes_image / max(result.bytes_wire, 1)
        self._print(f"{self._done} in {units.seconds(result.seconds)}", "bold green")
        rows = {
            "downtime": units.seconds(result.downtime) if result.downtime is not None else "",
            "memory": units.size(result.bytes_memory) if isinstance(result, MigrationResult) else "",
            "image": f"{units.size(result.bytes_image)}, of it data {units.size(result.bytes_data)}",
            "sealed": f"{units.size(result.bytes_wire)} ({less:.1f}x less), {result.cipher}",
            "digest": " ".join(disk.sha256 for disk in disks),
        }
        if isinstance(result, MigrationResult) and result.staying:
            rows["stays"] = ", ".join(f"{disk.device} ({disk.why})" for disk in result.staying)
        if result.resumed:
            rows["resumed"] = f"{units.size(result.resumed)} were there from an earlier try"
        for name, value in rows.items():
            if value:
                self._print(f"  {name:<8} {value}")
