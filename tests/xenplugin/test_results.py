"""The JSON of results is a public interface: its keys, their order, and figures rounded to milliseconds."""

from __future__ import annotations

import json
from dataclasses import replace

from xenplugin import events, results
from xenplugin.results import (
    DiskEstimate,
    Estimate,
    Expected,
    MigrationResult,
    StayingDisk,
    StreamResult,
    TransferResult,
)

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
    staying=(StayingDisk("xvdb", "/nfs/b.img", "shared"), StayingDisk("hdc", "/srv/a.iso", "left")),
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
        f' "disks": [{DISK_JSON}, {second}],'
        ' "staying": [{"device": "xvdb", "path": "/nfs/b.img", "why": "shared"},'
        ' {"device": "hdc", "path": "/srv/a.iso", "why": "left"}], "estimate": null}'
    )


ESTIMATE = Estimate(
    seconds=Expected(8.00049, 10, 13),
    downtime=Expected(0.3, 0.5, 1.0),
    phases={"connect": 1.5, "memory": 8.5},
    bytes_wire=Expected(300, 400, 500),
    bytes_memory=1000,
    bytes_compared=64,
    rtt=0.12,
    ready=0.9,
    rate=Expected(1e6, 2e6, 3e6),
    streams=32,
    level=6,
    disks=(
        DiskEstimate(
            name="xvda", bytes_image=100, bytes_to_send=Expected(1, 2, 3), bytes_known=Expected(90, 91, 92)
        ),
    ),
    assumptions=("how well its memory packs",),
)


def test_the_json_of_an_estimate_has_units_in_its_names() -> None:
    assert json.dumps(ESTIMATE.as_json()) == (
        '{"seconds": {"low": 8.0, "middle": 10, "high": 13},'
        ' "downtime_seconds": {"low": 0.3, "middle": 0.5, "high": 1.0},'
        ' "phases_seconds": {"connect": 1.5, "memory": 8.5},'
        ' "bytes_wire": {"low": 300, "middle": 400, "high": 500}, "bytes_memory": 1000, "bytes_compared": 64,'
        ' "rtt_seconds": 0.12, "ready_seconds": 0.9,'
        ' "rate_bytes_per_second": {"low": 1000000.0, "middle": 2000000.0, "high": 3000000.0},'
        ' "streams": 32, "level": 6, "disks": [{"name": "xvda", "bytes_image": 100,'
        ' "bytes_to_send": {"low": 1, "middle": 2, "high": 3},'
        ' "bytes_known": {"low": 90, "middle": 91, "high": 92}}], "assumptions": ["how well its memory packs"]}'
    )


def test_the_result_of_a_guest_has_its_estimate_which_is_not_read_back() -> None:
    values = json.loads(json.dumps(replace(GUEST, estimate=ESTIMATE).as_json()))
    assert values["estimate"] == ESTIMATE.as_json()
    assert results.from_json(values) == results.from_json(GUEST.as_json())
    told = json.loads(json.dumps(events.to_json(events.Estimated(ESTIMATE))))
    assert told == {"event": "estimated", "estimate": ESTIMATE.as_json()} and events.from_json(told) is None


def test_a_lost_report_leaves_the_downtime_unknown() -> None:
    assert replace(GUEST, downtime=None).as_json()["downtime"] is None


def test_results_pass_through_json() -> None:
    for result in (DISK, GUEST):
        values = json.loads(json.dumps(result.as_json())) | {"later": "ignored"}
        assert results.from_json(values).as_json() == result.as_json()
        event = events.from_json(json.loads(json.dumps(events.to_json(events.Finished(result)))))
        assert isinstance(event, events.Finished) and event.result.as_json() == result.as_json()
