"""Exactly one guest, on its own disk: what holds in every state of the model (ownership_model)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.xenplugin.migrate.ownership.ownership_model import (
    LIVE,
    NONE,
    STILL,
    D,
    Found,
    S,
    World,
    answer,
    declared,
    orderly,
    reach,
    recover_destination,
    recover_source,
    steps,
    story,
)
from xenplugin.errors import OwnershipError
from xenplugin.migrate.ownership import states
from xenplugin.migrate.ownership.states import (
    FINAL,
    TRANSITIONS,
    Action,
    GuestPresence,
    NoAnswer,
    OwnershipState,
    PeerAnswer,
    Role,
    check,
    decide,
)


@pytest.fixture(scope="module")
def found() -> Found:
    return reach(steps)


def test_two_guests_never_run(found: Found) -> None:
    for world in found:
        assert world.running <= 1, story(found, world)
        if NoAnswer.LOST in world.heard:
            continue  # what the destination had recorded went with it
        assert not (world.source is OwnershipState.KEPT and world.destination is OwnershipState.RUNNING), story(
            found, world
        )
        assert not (world.source is OwnershipState.GIVEN and world.destination is OwnershipState.REFUSED), story(
            found, world
        )


def test_an_old_disk_is_never_started(found: Found) -> None:
    """Not while the guest runs elsewhere, and not if it may do so later: each later state is among those found."""
    started = 0
    for world in found:
        started += world.again
        assert not (world.again and (world.copy is LIVE or world.elsewhere)), story(found, world)
        if NoAnswer.LOST not in world.heard:  # else what ran there was lost with its host
            assert not (world.again and world.destination is OwnershipState.RUNNING), story(found, world)
        may = world.source in (OwnershipState.HANDING, OwnershipState.GIVEN) or world.copy is LIVE
        assert not may or world.disk == "aside", story(found, world)
    assert started


def test_a_copy_that_has_arrived_gives_up_its_name_unless_it_runs(found: Found) -> None:
    """Before the record is final: until then it claims the disk. (A record that is lost claims nothing.)"""
    aside = 0
    for world in found:
        aside += world.arrived == "aside"
        assert world.copy is NONE or world.arrived == "named", story(found, world)
        assert world.destination is not OwnershipState.REFUSED or world.arrived in ("", "aside"), story(
            found, world
        )
    assert aside


def test_what_is_given_up_before_message_6_stays(found: Found) -> None:
    """At any instant, with any process killed and any recovery running."""
    ends: Counter[str] = Counter()
    for world in found:
        if world.end in ("", "handing"):
            continue
        ends[world.near_xl] += 1
        assert world.source in (OwnershipState.MOVING, OwnershipState.KEPT, OwnershipState.REMOVED), story(
            found, world
        )
        assert world.destination in (OwnershipState.RECEIVING, OwnershipState.REFUSED), story(found, world)
    assert ends.keys() == {"stream", "gated", "asked", ""}


def test_a_guest_that_stays_has_its_disk(found: Found) -> None:
    """And one that has left has none of that name here."""
    for world in found:
        if world.near_alive or world.far_alive or world.broken or world.dead:
            continue
        for order in ((S, D), (D, S)):
            settled = recovered(at_peace(world), order)
            stays = settled.destination is OwnershipState.REFUSED
            assert settled.disk == ("named" if stays else "aside"), story(found, world)


def test_recovery_always_leaves_one_guest(found: Found) -> None:
    """Once both hosts answer, nothing of the migration runs any more and recover was run on both: in any order."""
    ends: Counter[str] = Counter()
    for world in found:
        if world.near_alive or world.far_alive or world.broken or world.dead:
            continue  # these end by themselves or are killed: states that are visited, too; the rest is below
        for order in ((S, D), (D, S)):
            settled = recovered(at_peace(world), order)
            assert settled.source is OwnershipState.REMOVED, story(found, world)
            assert settled.destination in FINAL, story(found, world)
            assert STILL not in (settled.guest, settled.copy), story(found, world)
            if not world.restarted:
                assert settled.running == 1, story(found, world)
            ends[f"{settled.guest.name} {settled.copy.name}"] += 1
    assert ends["LIVE NONE"] and ends["NONE LIVE"]


def at_peace(world: World) -> World:
    return replace(world, link=True, forward="", backward="", heard=frozenset())


def recovered(world: World, order: tuple[Role, Role]) -> World:
    before = None
    while before != world:
        before = world
        for role in order:
            if role is D:
                world = recover_destination(world)[1]
                continue
            for heard in (NoAnswer.NOT_ASKED, *world.heard):
                world = recover_source(world, heard)[1]
    return world


def test_without_the_destinations_record_nothing_is_lost(found: Found) -> None:
    """What is left is on one of the hosts, perhaps suspended; the administrator's ways out lead to one guest."""
    undecided: Counter[PeerAnswer] = Counter()
    for world in found:
        if world.near_alive or world.far_alive or world.broken != "lost" or world.dead or world.restarted:
            continue
        settled = recovered(at_peace(world), (S, D))
        assert settled.running == 1 or STILL in (settled.guest, settled.copy), story(found, world)
        if settled.source is OwnershipState.REMOVED:
            continue
        undecided[answer(settled)] += 1
        if not settled.elsewhere:
            kept = recovered(declared(replace(at_peace(settled), copy=NONE)), (S, D))
            assert (kept.source, kept.guest, kept.running) == (OwnershipState.REMOVED, LIVE, 1), story(found, world)
        if settled.copy is LIVE:
            given = recovered(replace(at_peace(settled), guest=NONE), (S, D))
            assert (given.source, given.copy, given.running) == (OwnershipState.REMOVED, LIVE, 1), story(
                found, world
            )
    assert undecided.keys() == {NoAnswer.ABSENT, NoAnswer.PRESENT, NoAnswer.UNCLEAR}


def test_a_destination_that_is_lost_for_ever(found: Found) -> None:
    """Undecided until the administrator declares it; then the guest is here, if it was."""
    for world in found:
        if not world.dead or world.near_alive or world.elsewhere:
            continue
        waits = recovered(at_peace(world), (S, D))
        settled = recovered(declared(waits), (S, D))
        assert waits.source in (OwnershipState.HANDING, OwnershipState.REMOVED), story(found, world)
        assert settled.source is OwnershipState.REMOVED, story(found, world)
        assert settled.running or world.restarted, story(found, world)


def test_only_a_host_that_restarted_can_lose_the_guest(found: Found) -> None:
    """A source that was restarted while the copy had not run loses what was in its memory, as any restart does;
    a destination that was restarted never takes the guest of the source with it unless it ran there."""
    for world in found:
        if world.near_alive or world.far_alive or S in world.restarted or world.broken or world.dead:
            continue
        settled = recovered(at_peace(world), (S, D))
        if D in world.restarted and settled.destination is OwnershipState.RUNNING:
            continue  # it ran there and went down with its host
        assert settled.running == 1, story(found, world)


def test_undecided_only_without_the_peer(found: Found) -> None:
    undecided = 0
    for world in found:
        for heard in (NoAnswer.NOT_ASKED, *world.heard):
            action, _ = recover_source(world, heard)
            assert action is not Action.CONFLICT, story(found, world)
            undecided += action is Action.UNDECIDED
            assert action is not Action.UNDECIDED or world.source is OwnershipState.HANDING, story(found, world)
        assert recover_destination(world)[0] is not Action.CONFLICT, story(found, world)
        asks = world.source is OwnershipState.HANDING and not world.near_alive
        if asks and world.destination in FINAL and not (world.broken == "lost" or world.dead):
            settled = recovered(at_peace(world), (S, D))
            assert settled.source is OwnershipState.REMOVED, story(found, world)
    assert undecided


def test_orderly_migrations_end_given_or_kept() -> None:
    found = reach(orderly)
    ends = {world for world in found if not list(orderly(world))}
    assert {(w.source, w.destination, w.guest, w.copy) for w in ends} == {
        (OwnershipState.GIVEN, OwnershipState.RUNNING, NONE, LIVE),
        (OwnershipState.KEPT, OwnershipState.REFUSED, LIVE, NONE),
    }


@pytest.mark.parametrize(
    ("planted", "wrong"),
    [
        # A far xl that was cleared may still fail.
        (OwnershipState.CLEARED, Action.GIVE),
        # A host that does not answer may run the guest, and so may one without a record, or a third host.
        (NoAnswer.UNREACHABLE, Action.KEEP),
        (NoAnswer.PRESENT, Action.KEEP),
        (NoAnswer.ABSENT, Action.KEEP),
        (NoAnswer.ABSENT, Action.GIVE),
    ],
)
def test_the_search_finds_a_planted_fault(
    monkeypatch: pytest.MonkeyPatch, planted: PeerAnswer, wrong: Action
) -> None:
    honest = states._handing
    monkeypatch.setattr(states, "_handing", lambda peer, guest: wrong if peer is planted else honest(peer, guest))
    found = reach(steps)
    with pytest.raises(AssertionError):
        test_two_guests_never_run(found)
        test_recovery_always_leaves_one_guest(found)
        test_without_the_destinations_record_nothing_is_lost(found)


@given(st.sampled_from(Role), st.data(), st.booleans(), st.sampled_from(GuestPresence), st.booleans())
def test_there_is_always_an_answer(
    role: Role, data: st.DataObject, alive: bool, guest: GuestPresence, asked: bool
) -> None:
    state = data.draw(st.sampled_from(sorted(TRANSITIONS[role])))
    peer = data.draw(st.sampled_from([*OwnershipState, *NoAnswer]))
    assert isinstance(decide(role, state, alive, guest, peer, asked=asked), Action)


@given(st.sampled_from(Role), st.sampled_from(OwnershipState), st.sampled_from(OwnershipState))
def test_only_listed_transitions_are_allowed(role: Role, before: OwnershipState, after: OwnershipState) -> None:
    if after in TRANSITIONS[role].get(before, ()):
        check(role, before, after)
    else:
        with pytest.raises(OwnershipError, match="cannot become"):
            check(role, before, after)
