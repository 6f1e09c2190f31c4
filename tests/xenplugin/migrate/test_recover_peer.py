"""Recovery and the other host: down, lost, without a record, back again; and the answers it gets."""

from __future__ import annotations

import signal
import subprocess
import time

import pytest

from tests.xenplugin.migrate.two_hosts import (
    AWAY,
    ID,
    INCOMING,
    LIVE,
    THERE,
    D,
    HostPair,
    S,
)
from xenplugin.errors import OwnershipError, UsageError
from xenplugin.migrate import records
from xenplugin.migrate.ownership import FINAL, TRANSITIONS, OwnershipState
from xenplugin.migrate.recover import answer
from xenplugin.xen.process import process


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
        pair.reachable = True
        assert pair.near.recover() == 0
        assert pair.near.state(S) is None


def test_the_peer_is_lost_for_ever(pair: HostPair) -> None:
    pair.reachable = False
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    assert pair.near.recover(assume_peer_lost=True) == 0
    assert pair.live() == ["a 7 g1 -b----"]


def test_a_peer_that_answers_is_not_lost(pair: HostPair) -> None:
    """Whatever the administrator believes."""
    pair.near.domains(AWAY)
    pair.far.domains(THERE)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.record(D, OwnershipState.RUNNING)
    assert pair.near.recover(assume_peer_lost=True) == 0
    assert pair.live() == ["b 9 g1 -b----"]


def test_a_peer_that_knows_nothing(pair: HostPair) -> None:
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    assert pair.near.recover() == 20
    assert any("knows nothing" in line for line in pair.near.said)
    assert any("only if it does not" in line for line in pair.near.said)
    assert pair.near.rows == [AWAY]


def test_assuming_the_peer_lost_does_not_destroy_a_running_copy(pair: HostPair) -> None:
    """Else the same option on both hosts would make two guests of one."""
    pair.near.domains(AWAY)
    pair.near.record(S, OwnershipState.HANDING)
    pair.far.domains(THERE)
    pair.far.record(D, OwnershipState.RUNNING)
    assert pair.far.recover(assume_peer_lost=True) == 0
    assert pair.near.recover(assume_peer_lost=True) == 0
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
    assert pair.near.recover(assume_peer_lost=True) == 0
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
        answer(pair.far.host, "../../etc/passwd")
    assert answer(pair.far.host, ID).endswith('"unknown"}')


@pytest.mark.parametrize("state", sorted(TRANSITIONS[D]))
def test_the_source_needs_it_no_more(pair: HostPair, state: OwnershipState) -> None:
    pair.far.domains(INCOMING)
    pair.far.record(D, state)
    assert answer(pair.far.host, ID, settled=True).endswith('"forgotten"}')
    assert pair.far.state(D) is None
    assert pair.far.rows == ([INCOMING] if state in FINAL else [])


def test_the_record_of_a_running_process_is_not_forgotten(
    pair: HostPair, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xenplugin.migrate.local_host.AT_WORK", 0.2)
    pair.far.record(D, OwnershipState.CLEARED, driver=process(sleeper.pid))
    assert answer(pair.far.host, ID, settled=True).endswith('"cleared"}')
    with pytest.raises(OwnershipError, match="still needed"):
        records.forget(pair.far.state_dir, pair.far.record_now())


def test_expired_records_are_removed(pair: HostPair) -> None:
    pair.reachable = False
    old = time.time() - records.EXPIRY - 60
    pair.near.record(S, OwnershipState.REMOVED, changed=old)
    pair.far.record(D, OwnershipState.REFUSED, changed=old)
    assert pair.near.recover() == pair.far.recover() == 0
    assert pair.near.state(S) is pair.far.state(D) is None


def test_a_new_record_stays_for_the_peers_questions(pair: HostPair) -> None:
    pair.far.record(D, OwnershipState.RUNNING)
    assert pair.far.recover() == 0
    assert pair.far.state(D) is OwnershipState.RUNNING
