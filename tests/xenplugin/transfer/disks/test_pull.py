"""What a pull believes of the lines that the far side writes to its standard error."""

from __future__ import annotations

import json
from typing import Any

import pytest

from xenplugin import events
from xenplugin.results import MigrationResult, TransferResult
from xenplugin.transfer.disks.pull import event_of

RESULT = TransferResult(
    seconds=1.0, bytes_image=1, bytes_data=1, bytes_wire=1, phases={}, cipher="x", level=3, sha256="tree1:00"
)
PROGRESS = {**events.to_json(events.Progress(1, 2, 3, 4, -99, 0.5)), "time": 1.0}
LINKED = {"event": "linked", "address": "::1", "rtt": 0, "streams": 1, "congestion": "bbr"}


@pytest.mark.parametrize(
    "event",
    [
        events.Started("copy", "/x", "/y", 5),
        events.Phase("connect"),
        events.Linked("::1", 0.1, 4, "cubic"),
        events.Progress(1, 2, 3, 4, -99, 0.5),
        events.Notice("text"),
        events.Finished(RESULT),
    ],
)
def test_events_of_a_transfer_are_events(event: events.Event) -> None:
    assert event_of(json.dumps(events.to_json(event))) == event


@pytest.mark.parametrize(
    "line",
    [
        "text",
        "{",
        "[]",
        "{}",
        '{"event": "progress"}',
        json.dumps({**PROGRESS, "bytes_done": "1"}),
        json.dumps({**PROGRESS, "bytes_done": None}),
        json.dumps({**PROGRESS, "bytes_done": True}),
        json.dumps({**PROGRESS, "bytes_done": 1.5}),
        json.dumps({**PROGRESS, "seconds": float("nan")}),
        json.dumps({**PROGRESS, "seconds": float("inf")}),
        json.dumps({**PROGRESS, "bytes_wire": -101}),
        json.dumps({**PROGRESS, "bytes_wire": 10**400}),
        json.dumps({**LINKED, "address": ["::1"]}),
        json.dumps(events.to_json(events.Failed(20, "forged", None))),
        json.dumps(events.to_json(events.Far("forged"))),
        json.dumps(events.to_json(events.Xl("forged"))),
        json.dumps({"event": "finished", "result": {**RESULT.as_json(), "bytes_wire": "1"}}),
        json.dumps({"event": "finished", "result": []}),
        json.dumps({"event": "finished", "result": {"disks": 5}}),
        '{"event": ' + 900 * "[" + 900 * "]" + "}",
    ],
)
def test_other_lines_are_no_events(line: str) -> None:
    assert event_of(line) is None


def test_the_result_of_a_guest_is_no_event_of_a_pull() -> None:
    values: dict[str, Any] = {"seconds": 1, "bytes_memory": 1, "bytes_wire": 1, "phases": {}, "downtime": None}
    values |= {"cipher": "x", "level": 1, "streams": 1, "mode": "live"}
    guest = MigrationResult(**values, disks=(RESULT,))
    assert event_of(json.dumps(events.to_json(events.Finished(guest)))) is None
