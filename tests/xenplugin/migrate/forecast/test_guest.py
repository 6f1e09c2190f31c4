"""The estimate beside a move: it measures until the move needs the link, and never stands in its way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.xenplugin.migrate.forecast.test_learned import a_result, an_estimate
from xenplugin import events
from xenplugin.config import Config
from xenplugin.errors import LinkError, RefusedError
from xenplugin.migrate.forecast import guest, learned
from xenplugin.migrate.forecast.forecast import DiskToMove
from xenplugin.migrate.forecast.guest import EstimateBeside, LeavingDisk, PlannedMove
from xenplugin.results import Estimate


class Measured:
    """A forecast that measures until it is stopped, and then fails or is known."""

    def __init__(self, error: Exception | None = None) -> None:
        self.stopped = threading.Event()
        self.began = threading.Event()
        self._error = error

    def run(self, seconds: float) -> Estimate:
        self.began.set()
        self.stopped.wait()
        if self._error is not None:
            raise self._error
        return an_estimate()

    def stop(self) -> None:
        self.stopped.set()


def planned(tmp_path: Path) -> Callable[[], PlannedMove]:
    config = Config(state_dir=tmp_path / "state")
    disks = [LeavingDisk("xvda", str(tmp_path / "disk"), 8 << 20)]
    return lambda: PlannedMove("uuid", 1 << 20, disks, "hostb", config)


def test_a_disk_has_the_size_that_the_guest_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of its file, which may be a qcow2."""
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    taken: list[DiskToMove] = []

    class Taken:
        def __init__(self, disks: list[DiskToMove], *_: object, **__: object) -> None:
            taken.extend(disks)

        def run(self) -> Estimate:
            return an_estimate()

    monkeypatch.setattr(guest, "Forecast", Taken)
    guest.estimate(planned(tmp_path)(), lambda event: None)
    assert [(disk.size, disk.source.size) for disk in taken] == [(8 << 20, 1 << 20)]


@pytest.mark.parametrize("phase", ["disks", "memory"])
def test_it_ends_when_the_move_needs_the_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    measured = Measured()
    seen: list[events.Event] = []
    monkeypatch.setattr(guest, "_forecast", lambda *given: measured)
    with EstimateBeside(planned(tmp_path), seen.append) as beside:
        measured.began.wait()
        beside(events.Phase("connect"))
        assert not measured.stopped.is_set()
        beside(events.Phase(phase))
        assert measured.stopped.is_set()
    assert beside.conclude(a_result()).estimate == an_estimate()
    assert [type(event) for event in seen if not isinstance(event, events.Estimated)] == [events.Phase] * 2
    assert events.Estimated(an_estimate()) in seen


def test_a_move_that_is_quicker_stops_it_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, go = Measured(), threading.Event()

    def forecast(*given: object) -> Measured:
        go.wait()
        return measured

    monkeypatch.setattr(guest, "_forecast", forecast)
    with EstimateBeside(planned(tmp_path), lambda event: None) as beside:
        beside(events.Phase("disks"))
        go.set()
    assert beside.conclude(a_result()).estimate == an_estimate()


@pytest.mark.parametrize("error", [LinkError("gone"), RefusedError("no"), OSError(5, "Input/output error")])
def test_a_failure_is_no_failure_of_the_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    seen: list[events.Event] = []
    monkeypatch.setattr(guest, "_forecast", lambda *given: Measured(error))
    with EstimateBeside(planned(tmp_path), seen.append) as beside:
        pass
    assert beside.conclude(a_result()).estimate is None and seen == []


def test_a_disk_that_cannot_be_read_is_no_failure_of_the_move(tmp_path: Path) -> None:
    with EstimateBeside(planned(tmp_path), lambda event: None) as beside:
        pass
    assert beside.conclude(a_result()).estimate is None


def test_what_the_move_has_shown_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "_forecast", lambda *given: Measured())
    with EstimateBeside(planned(tmp_path), lambda event: None) as beside:
        pass
    beside.conclude(a_result())
    assert learned.look_up(tmp_path / "state", "uuid", "hostb", "live").assumptions == ()


def test_an_error_inside_is_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest, "_forecast", lambda *given: Measured())
    with pytest.raises(KeyboardInterrupt), EstimateBeside(planned(tmp_path), lambda event: None):
        raise KeyboardInterrupt
