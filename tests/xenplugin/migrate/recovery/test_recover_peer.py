"""Recovery and the other host: down, lost, without a record, back again; and the answers it gets."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.xenplugin.migrate.two_hosts import (
    AWAY,
    ID,
    INCOMING,
    LIVE,
    LOST,
    NOWHERE,
    THERE,
    UUID,
    D,
    HostPair,
    S,
)
from xenplugin.errors import ImageError, OwnershipError, PeerError, UsageError
from xenplugin.migrate.ownership import host_identity, record_locks, records
from xenplugin.migrate.ownership.records import PeerNote
from xenplugin.migrate.ownership.states import FINAL, TRANSITIONS, OwnershipState
from xenplugin.migrate.recovery.recover import Declaration, answer
from xenplugin.xen.process import process
from xenplugin.xen.xl import Domain


@pytest.mark.parametrize(
    ("source", "code"),
    [(OwnershipState.MOVING, 0), (OwnershipState.HANDING, 20), (OwnershipState.KEPT, 0), (OwnershipState.GIVEN, 0)],
)
def test_the_peer_is_down(pair: HostPair, source: OwnershipState, code: int) -> None:
    pair.reachable = False
    pair.near.domains(AWAY)
    pair.near.record(S, source)
    assert pair.near.recover() == code
    if code:
        assert pair.near.rows == [AWAY] and pair.near.state(S) is OwnershipState.HANDING
        assert any("--assume-peer-lost" in line for line in pair.near.said)
    else:
        assert pair.near.rows == ([] if source is OwnershipState.GIVEN else ["7 g1 -b----"])
        assert pair.near.state(S) is OwnershipState.REMOVED  # a later recover notifies the peer
        assert "run `xenplugin recover` again" in pair.near.said[-1]
        pair.reachable = True
        assert pair.near.recover() == 0
        assert pair.near.state(S) is None


def test_the_peer_is_lost_for_ever(pair: HostPair) -> None:
    pair.reachable = False
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    assert pair.near.recover(LOST) == 0
    assert pair.live() == ["a 7 g1 -b----"]


def test_a_peer_that_answers_is_not_lost(pair: HostPair) -> None:
    """Whatever the administrator believes."""
    pair.near.domains(AWAY)
    pair.far.domains(THERE)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.record(D, OwnershipState.RUNNING)
    assert pair.near.recover(LOST) == 0
    assert pair.live() == ["b 9 g1 -b----"]


def test_a_host_that_gives_no_answer_is_not_lost(pair: HostPair) -> None:
    """Its sshd answered, but xenplugin is missing there, of another version, or was killed."""
    pair.answers = False
    pair.near.domains(AWAY)
    pair.far.domains(THERE)
    pair.near.record(S, OwnershipState.HANDING)
    assert pair.near.recover(LOST) == pair.near.recover(NOWHERE) == 20
    assert pair.near.rows == [AWAY] and "switch it off first" in pair.near.said[-1]


def test_a_host_that_comes_back_while_the_administrator_types_is_not_lost(pair: HostPair) -> None:
    pair.reachable = False
    pair.near.domains(AWAY)
    pair.far.domains(INCOMING)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.record(D, OwnershipState.CLEARED)

    def confirm(name: str) -> bool:
        assert name == "g1" and any("two guests" in line for line in pair.near.said)
        pair.reachable = True
        assert pair.far.recover() == 0  # by the administrator over there, at the same time
        return True

    assert pair.near.recover(Declaration(peer_lost=True, confirm=confirm)) == 20
    assert pair.live() == ["b 9 g1 -b----"]
    assert pair.near.recover() == 0
    assert pair.live() == ["b 9 g1 -b----"] and pair.near.rows == []


@pytest.mark.parametrize("declared", [Declaration(), LOST, NOWHERE])
@pytest.mark.parametrize("record", ["none", "truncated", "a folder"])
def test_a_guest_that_runs_there_without_a_record_is_not_started_here(
    pair: HostPair, declared: Declaration, record: str
) -> None:
    pair.near.domains(AWAY)
    pair.far.domains(THERE)
    pair.near.record(S, OwnershipState.HANDING)
    if record != "none":
        one = pair.far.record(D, OwnershipState.CLEARED)
        path = pair.far.state_dir / records.FOLDER / one.file_name
        if record == "truncated":
            path.write_bytes(path.read_bytes()[:40])
        else:
            path.unlink()
            path.mkdir()
    assert pair.near.recover(declared) == 20
    assert pair.near.rows == [AWAY] and pair.live() == ["b 9 g1 -b----"]
    assert any("runs there" in line for line in pair.near.said) and "xl destroy 7" in pair.near.said[-1]
    pair.near.domains()  # the administrator did
    pair.near.recover(declared)
    assert pair.near.state(S) in (None, OwnershipState.REMOVED) and pair.live() == ["b 9 g1 -b----"]


def test_a_copy_there_that_does_not_run_proves_nothing(pair: HostPair) -> None:
    pair.near.domains(AWAY)
    pair.far.domains(INCOMING)
    pair.near.record(S, OwnershipState.HANDING)
    assert pair.near.recover(NOWHERE) == pair.near.recover(LOST) == 20
    assert pair.near.rows == [AWAY] and pair.far.rows == [INCOMING]


def test_neither_a_record_nor_a_domain(pair: HostPair) -> None:
    """It may have run there and moved on: only the administrator can know."""
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    assert pair.near.recover() == pair.near.recover(LOST) == 20
    assert any("no record" in line for line in pair.near.said) and "--assume-not-running" in pair.near.said[-1]
    assert pair.near.recover(Declaration(not_running=True, confirm=lambda name: False)) == 20
    assert pair.near.rows == [AWAY]
    assert pair.near.recover(NOWHERE) == 0
    assert pair.live() == ["a 7 g1 -b----"]


def test_domains_that_cannot_be_listed_prove_nothing(pair: HostPair, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(uuid: str) -> list[Domain]:
        raise PeerError("xl list failed (1)")

    monkeypatch.setattr(pair.far.xl, "with_uuid", fail)
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    assert pair.near.recover(NOWHERE) == 20
    assert pair.near.rows == [AWAY] and any("cannot be listed" in line for line in pair.near.said)


@pytest.mark.parametrize("copy", [THERE, INCOMING, None])
def test_a_far_side_that_cannot_write_its_record(
    pair: HostPair, copy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file system has become read-only: what it cannot record decides nothing, until it is repaired."""
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.domains(*([copy] if copy else []))
    pair.far.record(D, OwnershipState.CLEARED)

    with monkeypatch.context() as broken:
        opened = record_locks._open

        def read_only(folder: Path, name: str) -> int:
            if folder.parent == pair.far.state_dir:
                raise ImageError("cannot use the records: Read-only file system")
            return opened(folder, name)

        broken.setattr(record_locks, "_open", read_only)
        for declared in (Declaration(), LOST, NOWHERE):
            assert pair.near.recover(declared) == 20
        assert pair.near.rows == [AWAY] and pair.far.rows == ([copy] if copy else [])
    assert pair.near.recover() == 0
    assert pair.live() == ["b 9 g1 -b----" if copy else "a 7 g1 -b----"]


@pytest.mark.parametrize("years", [-30, 30])
def test_no_clock_decides(pair: HostPair, years: int) -> None:
    """The clock of one of them was wrong: what runs there is not started here."""
    pair.near.domains(AWAY)
    pair.far.domains(THERE)
    then = time.time() + years * 365 * 86400
    pair.near.record(S, OwnershipState.HANDING, changed=then, began=then)
    pair.far.record(D, OwnershipState.RUNNING, changed=then, began=then)
    assert pair.far.recover() == 0
    assert pair.far.state(D) is OwnershipState.RUNNING
    assert pair.near.recover(LOST) == 0
    assert pair.live() == ["b 9 g1 -b----"] and pair.near.rows == []


def test_another_machine_has_the_peers_name(pair: HostPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """hostb leads to a machine that knows nothing, or that has the record of a clone: its word does not count."""
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING, peer=PeerNote("hostb", "ssh", machine="m", key="k"))
    pair.far.record(D, OwnershipState.REFUSED)
    assert pair.near.recover() == pair.near.recover(LOST) == 20
    assert pair.near.rows == [AWAY] and any("another machine" in line for line in pair.near.said)
    records.forget(pair.far.state_dir, pair.far.record_now())
    assert pair.near.recover() == pair.near.recover(NOWHERE) == 20
    assert pair.near.rows == [AWAY] and "/etc/hosts" in pair.near.said[-1]
    assert pair.near.recover(LOST) == 0  # that machine is reached by no means
    assert pair.live() == ["a 7 g1 -b----"]


def test_the_peer_itself_is_known_again(pair: HostPair) -> None:
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING, peer=PeerNote("hostb", "ssh", **host_identity.here().fields))
    pair.far.record(D, OwnershipState.REFUSED)
    assert pair.near.recover() == 0
    assert pair.live() == ["a 7 g1 -b----"] and pair.near.state(S) is None


def test_assuming_the_peer_lost_does_not_destroy_a_running_copy(pair: HostPair) -> None:
    """Else the same option on both hosts would make two guests of one."""
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.domains(THERE)
    pair.far.record(D, OwnershipState.RUNNING)
    assert pair.far.recover(LOST) == 0
    assert pair.near.recover(LOST) == 0
    assert pair.live() == ["b 9 g1 -b----"]


def test_the_source_asks_and_the_driver_there_still_waits(pair: HostPair, sleeper: subprocess.Popen[bytes]) -> None:
    """Its session is lost and it does not know yet: it is ended, so that message 6 can never take effect."""
    pair.near.domains(AWAY)
    pair.far.domains(INCOMING)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.record(D, OwnershipState.RECEIVING, driver=process(sleeper.pid))
    assert pair.near.recover() == 0
    assert sleeper.wait(10) == -signal.SIGTERM
    assert pair.live() == ["a 7 g1 -b----"] and pair.far.rows == []


def test_a_host_assumed_lost_comes_back(pair: HostPair) -> None:
    """Its copy was cleared and never ran: the source has the guest, the copy goes."""
    pair.reachable = False
    pair.near.domains(AWAY)
    pair.far.domains(INCOMING)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.record(D, OwnershipState.CLEARED)
    assert pair.near.recover(LOST) == 0
    pair.reachable = True
    assert pair.near.recover() == 0
    assert pair.live() == ["a 7 g1 -b----"] and pair.far.rows == []
    assert pair.near.state(S) is pair.far.state(D) is None


def test_two_guests_that_run_are_not_made_one(pair: HostPair) -> None:
    """The host that was taken for lost ran the guest all the time: which one goes on is nobody's guess."""
    pair.near.domains(LIVE)
    pair.far.domains(THERE)
    pair.near.record(S, OwnershipState.REMOVED)
    pair.far.record(D, OwnershipState.CLEARED)
    pair.near.recover()
    assert pair.far.rows == [THERE] and pair.far.state(D) is OwnershipState.CLEARED


def test_the_answer_is_for_a_migration(pair: HostPair) -> None:
    with pytest.raises(UsageError):
        answer(pair.far.host, "../../etc/passwd", UUID)
    assert '"unknown"' in answer(pair.far.host, ID, UUID)


@pytest.mark.parametrize("state", sorted(TRANSITIONS[D]))
def test_the_source_needs_it_no_more(pair: HostPair, state: OwnershipState) -> None:
    pair.far.domains(INCOMING)
    pair.far.record(D, state)
    assert answer(pair.far.host, ID, UUID, settled=True).find('"forgotten"') > 0
    assert pair.far.state(D) is None
    assert pair.far.rows == ([INCOMING] if state in FINAL else [])


def test_the_record_of_a_running_process_is_not_forgotten(
    pair: HostPair, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xenplugin.migrate.recovery.local_host.AT_WORK", 0.2)
    pair.far.record(D, OwnershipState.CLEARED, driver=process(sleeper.pid))
    assert answer(pair.far.host, ID, UUID, settled=True).find('"cleared"') > 0
    with pytest.raises(OwnershipError, match="still needed"):
        records.forget(pair.far.state_dir, pair.far.record_now())


def test_a_final_record_stays_for_the_peers_questions(pair: HostPair) -> None:
    pair.far.record(D, OwnershipState.RUNNING)
    assert pair.far.recover() == 0
    assert pair.far.state(D) is OwnershipState.RUNNING
