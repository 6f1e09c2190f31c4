"""What moves have shown is used for the next estimate; a damaged file counts as none."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from xenplugin.migrate.forecast import learned
from xenplugin.migrate.forecast.model import own_seconds
from xenplugin.results import Estimate, Expected, MigrationResult, PhaseName, TransferResult

UUID = "5c5b1ad0-4f16-4a3c-9d1e-000000000005"
ONE = Expected(1, 1, 1)
PHASES: dict[PhaseName, float] = {"connect": 5.0, "disks": 9.0, "memory": 20.0, "stopped": 0.5, "handover": 1.0}


def an_estimate(rtt: float = 0.1, ready: float = 1.0) -> Estimate:
    return Estimate(
        seconds=ONE, downtime=ONE, phases={}, bytes_wire=ONE, bytes_memory=1000, bytes_compared=0, rtt=rtt,
        ready=ready, rate=ONE, streams=2, level=3, disks=(), assumptions=(),
    )  # fmt: skip


def a_result(mode: str = "live", wire: int = 300, disk: int = 50) -> MigrationResult:
    moved = TransferResult(
        seconds=1, bytes_image=1, bytes_data=1, bytes_wire=disk, phases={}, cipher="", level=1, sha256=""
    )
    return MigrationResult(
        seconds=9, bytes_memory=1050, bytes_wire=wire, phases=PHASES, downtime=1.2, cipher="", level=1, streams=2,
        mode=mode, disks=(moved,),
    )  # fmt: skip


def test_nothing_is_known_at_first(tmp_path: Path) -> None:
    found = learned.look_up(tmp_path, UUID, "hostb", "live")
    assert (found.ratio, found.steps) == (learned.UNKNOWN_RATIO, learned.UNKNOWN_STEPS)
    assert len(found.assumptions) == 1 and "memory" in found.assumptions[0]


def test_a_move_is_learnt_from(tmp_path: Path) -> None:
    learned.note(tmp_path / "state", UUID, "hostb", an_estimate(), a_result())
    found = learned.look_up(tmp_path / "state", UUID, "hostb", "live")
    assert found.ratio.middle == pytest.approx(1050 / 250)
    assert found.ratio.low < found.ratio.middle < found.ratio.high < learned.UNKNOWN_RATIO.high
    assert found.steps.connect.middle == pytest.approx(5.0 - 2 * 1.0 - 16 * 0.1)
    assert found.steps.handover.middle == pytest.approx(1.0 - 3 * 0.1)
    assert found.steps.downtime.middle == pytest.approx(1.2 - 3 * 0.1)
    assert found.steps.assumed == frozenset()
    assert found.assumptions == ()


def test_one_move_is_chance(tmp_path: Path) -> None:
    """Half of what was known of a host stays."""
    learned.note(tmp_path, UUID, "hostb", an_estimate(), a_result())
    learned.note(tmp_path, UUID, "hostb", an_estimate(rtt=0.0), a_result())
    found = learned.look_up(tmp_path, UUID, "hostb", "live").steps
    assert found.downtime.middle == pytest.approx((0.9 + 1.2) / 2)


def test_hosts_and_modes_are_learnt_apart_and_guests_by_themselves(tmp_path: Path) -> None:
    learned.note(tmp_path, UUID, "hostb", an_estimate(), a_result("static"))
    same = learned.look_up(tmp_path, UUID, "hostb", "static")
    assert same.steps.handover.middle == pytest.approx(0.7)
    assert same.steps.stopped == learned.UNKNOWN_STEPS.stopped  # it has the disks in it
    assert same.steps.downtime == learned.UNKNOWN_STEPS.downtime
    assert same.steps.assumed == {"stopped", "downtime"}
    assert learned.look_up(tmp_path, UUID, "hostb", "live").steps == learned.UNKNOWN_STEPS
    assert learned.look_up(tmp_path, UUID, "hostc", "static").steps == learned.UNKNOWN_STEPS
    assert learned.look_up(tmp_path, UUID, "hostc", "static").ratio == same.ratio
    assert learned.look_up(tmp_path, "another", "hostb", "static").ratio == learned.UNKNOWN_RATIO


def test_steps_are_never_negative() -> None:
    assert set(own_seconds(an_estimate(rtt=9.0), a_result()).values()) == {0.0}


def test_old_entries_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "_MOST", 3)
    for number in range(5):
        monkeypatch.setattr(time, "time", lambda at=number: at)
        learned.note(tmp_path, f"guest{number}", "hostb", an_estimate(), a_result())
    assert set(json.loads((tmp_path / learned.NAME).read_bytes())["guests"]) == {"guest2", "guest3", "guest4"}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff", b"[]", b"null", b'{"format": 2}', b'{"format": 1, "guests": 5, "hosts": []}', b"[" * 100_000,
        b'{"format":1,"guests":{"%s":{"ratio":"x"}},"hosts":{"hostb live":{"connect":-1}}}' % UUID.encode(),
        b'{"format":1,"guests":{"%s":{"ratio":0}},"hosts":{"hostb live":5}}' % UUID.encode(),
        b'{"format":1,"guests":{"%s":{"ratio":1e999}}}' % UUID.encode(),
    ],
)  # fmt: skip
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / learned.NAME).write_bytes(content)
    found = learned.look_up(tmp_path, UUID, "hostb", "live")
    assert (found.ratio, found.steps) == (learned.UNKNOWN_RATIO, learned.UNKNOWN_STEPS)
    learned.note(tmp_path, UUID, "hostb", an_estimate(), a_result())  # and is replaced
    assert learned.look_up(tmp_path, UUID, "hostb", "live").assumptions == ()


def test_what_cannot_be_written_is_left(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"a file")
    learned.note(tmp_path / "state", UUID, "hostb", an_estimate(), a_result())
    (tmp_path / learned.NAME).mkdir()
    learned.note(tmp_path, UUID, "hostb", an_estimate(), a_result())
    assert learned.look_up(tmp_path, UUID, "hostb", "live").assumptions
