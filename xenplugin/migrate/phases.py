"""The phases of a guest's migration: their order in time, how long each takes, and the guest's downtime.

connect   the far side runs its xl, whose banner comes back; the near xl sends its configuration
disks     live: the disks are sent in rounds while the guest runs, until little is left; xl is not read meanwhile
memory    xl's stream passes, and what is written to the disks meanwhile follows
stopped   the guest is suspended: the rest of its disks is sent (static, full: all of them) and made durable there
handover  the gate opens: xl's last bytes pass, and the two xl complete the migration
"""

from __future__ import annotations

import time

from xenplugin import events
from xenplugin.results import PhaseName


class PhaseClock:
    """Measures the phases, in seconds, and announces each by an event. Starts when it is made."""

    def __init__(self, emit: events.Emit) -> None:
        self._emit = emit
        self._began = time.monotonic()
        self._current: tuple[PhaseName, float] = ("connect", self._began)
        self._suspended = 0.0
        self._running: float | None = None
        self.finished: dict[PhaseName, float] = {}  #: seconds of each phase that is over

    @property
    def phase(self) -> PhaseName:
        """The phase that the migration is in."""
        return self._current[0]

    @property
    def seconds(self) -> float:
        """Seconds since the phase began."""
        return time.monotonic() - self._current[1]

    @property
    def total(self) -> float:
        """Seconds since the migration began."""
        return time.monotonic() - self._began

    @property
    def downtime(self) -> float | None:
        """Seconds from the guest's suspension to the far xl's report that it runs; None without that report."""
        return None if self._running is None else self._running - self._suspended

    def enter(self, phase: PhaseName) -> None:
        """End the phase, and begin the next."""
        (before, since), now = self._current, time.monotonic()
        self.finished[before] = now - since
        self._current = (phase, now)
        self._emit(events.Phase(phase))

    def guest_suspended(self) -> None:
        """Note that the guest is suspended now."""
        self._suspended = time.monotonic()

    def guest_runs(self) -> None:
        """Note that the guest was reported to run at the destination now."""
        self._running = time.monotonic()
