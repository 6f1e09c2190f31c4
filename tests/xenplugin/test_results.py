"""The JSON of results is a public interface: its keys, their order, and figures rounded to milliseconds."""

from __future__ import annotations

import json
from dataclasses import replace

from xenplugin import events, results
from xenplugin.results import MigrationResult, StreamResult, TransferResult

DISK = TransferResult(
    seconds=2.00049,
    bytes_image=100,
    bytes_data=40,
    bytes_wire=30,
    phases={"connect": 0.12345, "precopy": 1.0, "settle": 0.5},
    cipher="aes-128-gcm",
    level=3,
    streams=4,
    resumed=5,
    sha256="tree1:ab",
    rounds=3,
)
GUEST = MigrationResult.combine(
    StreamResult(bytes_stream=1000, bytes_wire=300, cipher="chacha20-poly1305", level=1, streams=8),
    [DISK, replace(DISK, sha256="tree1:cd", resumed=0)],
    mode="live",
    seconds=9.87654,
    downtime=0.40049,
    phases={"connect": 0.5, "memory": 3.3333},
)
DISK_JSON = (
    '{"seconds": 2.0, "bytes_image": 100, "bytes_data": 40, "bytes_wire": 30,'
    ' "phases": {"connect": 0.123, "precopy": 1.0, "settle": 0.5}, "downtime": null, "cipher": "aes-128-gcm",'
    ' "level": 3, "streams": 4, "resumed": 5, "sha256": "tree1:ab", "rounds": 3}'
)


def test_the_json_of_a_disk() -> None:
    assert json.dumps(DISK.as_json()) == DISK_JSON


def test_rounds_are_said_of_a_guests_disk_only() -> None:
    assert json.dumps(replace(DISK, rounds=None).as_json()) == DISK_JSON.replace(', "rounds": 3', "")


def test_the_json_of_a_guest_sums_its_disks() -> None:
    second = DISK_JSON.replace("tree1:ab", "tree1:cd").replace('"resumed": 5', '"resumed": 0')
    assert json.dumps(GUEST.as_json()) == (
        '{"seconds": 9.877, "bytes_image": 200, "bytes_data": 80, "bytes_memory": 1000, "bytes_wire": 360,'
        ' "phases": {"connect": 0.5, "memory": 3.333}, "downtime": 0.4, "cipher": "chacha20-poly1305", "level": 1,'
        ' "streams": 8, "resumed": 5, "sha256": ["tree1:ab", "tree1:cd"], "mode": "live",'
        f' "disks": [{DISK_JSON}, {second}]}}'
    )


def test_a_lost_report_leaves_the_downtime_unknown() -> None:
    assert replace(GUEST, downtime=None).as_json()["downtime"] is None


def test_results_pass_through_json() -> None:
    for result in (DISK, GUEST):
        values = json.loads(json.dumps(result.as_json())) | {"later": "ignored"}
        assert results.from_json(values).as_json() == result.as_json()
        event = events.from_json(json.loads(json.dumps(events.to_json(events.Finished(result)))))
        assert isinstance(event, events.Finished) and event.result.as_json() == result.as_json()
