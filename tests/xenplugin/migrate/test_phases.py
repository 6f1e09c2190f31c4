"""The clock of a migration's phases, on a time that the test sets."""

from __future__ import annotations

import time

import pytest

from xenplugin import events
from xenplugin.migrate.phases import PhaseClock


def test_each_phase_and_the_downtime(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    seen: list[events.Event] = []
    clock = PhaseClock(seen.append)
    now = 101.0
    clock.enter("memory")
    now = 104.0
    assert (clock.phase, clock.seconds, clock.total) == ("memory", 3.0, 4.0)
    clock.guest_suspended()
    clock.enter("stopped")
    assert clock.downtime is None
    now = 104.5
    clock.guest_runs()
    now = 106.0
    clock.enter("done")
    assert clock.finished == {"connect": 1.0, "memory": 3.0, "stopped": 2.0}
    assert clock.downtime == 0.5
    assert seen == [events.Phase("memory"), events.Phase("stopped"), events.Phase("done")]
