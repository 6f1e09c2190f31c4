"""Recovery leaves exactly one guest, the right one: from each state, in either order, killed at each step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.xenplugin.migrate.two_hosts import (
    AWAY,
    INCOMING,
    LIVE,
    PAUSED,
    SUSPENDED,
    THERE,
    D,
    HostPair,
    Killed,
    S,
)
from xenplugin.migrate.ownership.states import FINAL, OwnershipState

#: (source's state, its domain, destination's state, its domain) -> where the guest must be in the end.
CASES = {
    "source died, guest was running": (OwnershipState.MOVING, LIVE, None, None, "a"),
    "source died, guest suspended": (OwnershipState.MOVING, SUSPENDED, OwnershipState.RECEIVING, INCOMING, "a"),
    "after the renaming, before message 6": (OwnershipState.MOVING, AWAY, OwnershipState.RECEIVING, INCOMING, "a"),
    "message 6 lost": (OwnershipState.HANDING, AWAY, OwnershipState.RECEIVING, INCOMING, "a"),
    "message 6 lost, far copy gone": (OwnershipState.HANDING, AWAY, OwnershipState.RECEIVING, None, "a"),
    "cleared, not passed on, far xl destroyed it": (
        OwnershipState.HANDING,
        AWAY,
        OwnershipState.CLEARED,
        None,
        "a",
    ),
    "cleared, far xl was killed": (OwnershipState.HANDING, AWAY, OwnershipState.CLEARED, INCOMING, "b"),
    "cleared, far xl was killed after renaming": (
        OwnershipState.HANDING,
        AWAY,
        OwnershipState.CLEARED,
        PAUSED,
        "b",
    ),
    "cleared and unpaused": (OwnershipState.HANDING, AWAY, OwnershipState.CLEARED, THERE, "b"),
    "message 7 lost": (OwnershipState.HANDING, AWAY, OwnershipState.RUNNING, THERE, "b"),
    "message 7 lost, far guest has ended since": (OwnershipState.HANDING, AWAY, OwnershipState.RUNNING, None, ""),
    "given, not destroyed": (OwnershipState.GIVEN, AWAY, OwnershipState.RUNNING, THERE, "b"),
    "given and destroyed": (OwnershipState.GIVEN, None, OwnershipState.RUNNING, THERE, "b"),
    "far xl could not unpause": (OwnershipState.HANDING, AWAY, OwnershipState.REFUSED, None, "a"),
    "kept, not resumed": (OwnershipState.KEPT, AWAY, OwnershipState.REFUSED, None, "a"),
    "kept, renamed back": (OwnershipState.KEPT, SUSPENDED, OwnershipState.REFUSED, None, "a"),
    "kept and resumed": (OwnershipState.KEPT, LIVE, OwnershipState.RECEIVING, None, "a"),
    "source restarted": (OwnershipState.HANDING, None, OwnershipState.CLEARED, THERE, "b"),
}


#: In which ways the disk can lie on the source in each of its states.
DISK = {
    OwnershipState.MOVING: ("named", "recorded", "aside"),
    OwnershipState.HANDING: ("aside",),
    OwnershipState.GIVEN: ("aside",),
    OwnershipState.KEPT: ("named", "recorded", "aside"),
}
PLACES = [(case, disk) for case, facts in CASES.items() for disk in DISK[facts[0]]]


def place(pair: HostPair, case: str, disk: str) -> str:
    source, guest, destination, copy, end = CASES[case]
    pair.near.leave_disk(disk)
    pair.near.domains(*([guest] if guest else []))
    pair.far.domains(*([copy] if copy else []))
    pair.near.record(S, source)
    if destination is not None:
        pair.far.record(D, destination)
    pair.ticks = 0
    return end


def assert_settled(pair: HostPair, end: str) -> None:
    assert [row.split()[0] for row in pair.live()] == ([end] if end else [])
    for row in pair.live():
        assert row.split()[2] == "g1"
    assert len(pair.near.rows + pair.far.rows) == bool(end), "a copy was left behind"
    assert pair.near.state(S) is None
    assert pair.far.state(D) in (None, *FINAL)
    here = end == "a"  # its disk has its name where the guest is, and there only
    assert pair.near.disk.exists() is here
    assert [Path(old.aside).read_bytes() for old in pair.near.old_disks()] == ([] if here else [b"old"])


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize(("case", "disk"), PLACES)
def test_exactly_one_guest(pair: HostPair, case: str, disk: str, order: str) -> None:
    end = place(pair, case, disk)
    for name in order:
        assert (pair.near if name == "a" else pair.far).recover() == 0
    assert_settled(pair, end)
    ticks = pair.ticks
    assert pair.near.recover() == pair.far.recover() == 0
    assert pair.ticks == ticks, "what is settled is not touched again"


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize(("case", "disk"), PLACES)
def test_killed_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, disk: str, order: str
) -> None:
    """Killed before and after each change, and started again on both: the same end."""
    for step in range(1, 60):
        (tmp_path / str(step)).mkdir()
        pair = HostPair(tmp_path / str(step))
        pair.install(monkeypatch)
        end = place(pair, case, disk)
        pair.kill_at = step
        killed = False
        for name in order * 2:
            try:
                assert (pair.near if name == "a" else pair.far).recover() == 0
            except Killed:
                killed = True
            assert len(pair.live()) <= 1
            runs_there = any(row.startswith("b ") for row in pair.live())
            assert not (runs_there and pair.near.disk.exists()), "the old disk can be started"
        assert_settled(pair, end)
        if not killed:
            return
    raise AssertionError("recovery takes more steps than were tried")


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize(("case", "disk"), PLACES)
def test_administrators_at_work_on_both_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, disk: str, order: str
) -> None:
    """In each step of one of them another recovers on the same host, and one on the other: the same end."""
    monkeypatch.setattr(
        "xenplugin.migrate.recovery.local_host.AT_WORK", 0.0
    )  # who finds another one acting waits no longer
    for step in range(1, 60):
        (tmp_path / str(step)).mkdir()
        pair = HostPair(tmp_path / str(step))
        pair.install(monkeypatch)
        end = place(pair, case, disk)
        lives: list[list[str]] = []

        def others(pair: HostPair = pair, lives: list[list[str]] = lives) -> None:
            for side in (pair.near, pair.far, pair.near):
                assert side.recover() in (0, 20)
                lives.append(pair.live())

        pair.kill_at, pair.meanwhile = step, others
        for name in order * 2:
            assert (pair.near if name == "a" else pair.far).recover() in (0, 20)
            lives.append(pair.live())
        assert all(len(live) <= 1 for live in lives), lives
        assert_settled(pair, end)
        if pair.ticks < step:
            return
    raise AssertionError("recovery takes more steps than were tried")
