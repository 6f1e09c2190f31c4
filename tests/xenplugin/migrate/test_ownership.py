"""Exactly one guest: every interleaving of a migration's end, of crashes and of recovery, enumerated.

A small model of both hosts: the drivers (transport and receive) with their records, the two xl with their pipes,
the link between. Each step of each process is a transition, and so is the death of any process at any point, a cut
of the link, a restart of either host, the loss of the destination or of its record, a state directory that becomes
read-only, and each single step of recovery on either side. Any number of administrators recover on both at once: an
answer that one of them on the source has heard may be acted upon at any later time. A breadth-first search visits
every state that can be reached. What is decided in them is decided by ownership.decide itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.errors import OwnershipError
from xenplugin.migrate.ownership import (
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

NONE, STILL, LIVE = GuestPresence.NONE, GuestPresence.STILL, GuestPresence.LIVE
S, D = Role.SOURCE, Role.DESTINATION


@dataclass(frozen=True)
class World:
    """`near`, `far`: the drivers live. `*_xl`: what each xl does next, "" for gone. The pipes hold a driver's next
    work or an xl's next message; what is in a pipe survives the death of who wrote it."""

    source: OwnershipState = OwnershipState.MOVING
    destination: OwnershipState = OwnershipState.RECEIVING
    guest: GuestPresence = LIVE  # at the source
    copy: GuestPresence = NONE  # at the destination
    near: bool = True
    far: bool = True
    near_xl: str = "stream"  # stream, gated, asked, told, back
    far_xl: str = "stream"  # stream, ready, told, bad, cleaned, report
    near_in: str = ""  # what the near driver has from its xl: go
    near_out: str = ""  # what the near xl has from its driver: ok, back
    far_in: str = ""  # what the far driver has from its xl: ok, bad
    far_out: str = ""  # what the far xl has from its driver: go
    link: bool = True
    forward: str = ""  # on the link: go
    backward: str = ""  # on the link: ok, back
    restarted: frozenset[Role] = frozenset()  # hosts that went down with a guest on them
    heard: frozenset[PeerAnswer] = frozenset()  # answers that processes on the source may still act upon
    broken: str = ""  # the destination's records: "lost", or "read-only"
    dead: bool = False  # the destination, switched off for ever
    elsewhere: bool = False  # the guest has moved on from the destination to a third host

    @property
    def running(self) -> int:
        return (self.guest is LIVE) + (self.copy is LIVE) + self.elsewhere

    @property
    def near_alive(self) -> bool:
        return self.near or bool(self.near_xl)

    @property
    def far_alive(self) -> bool:
        return self.far or bool(self.far_xl)


Step = tuple[str, World]
Found = dict[World, tuple[World, str] | None]  # every state, with how it was reached first


def orderly(w: World) -> Iterator[Step]:
    """What the processes do by themselves."""
    # the two xl and what passes through the drivers without a record
    if w.near_xl == "stream" and w.near:
        yield "guest suspended", replace(w, near_xl="gated", guest=STILL)
    if w.far_xl == "stream" and w.far and w.link and w.near_xl == "gated":
        yield "stream loaded", replace(w, far_xl="ready", copy=STILL)
    if w.near_xl == "gated" and w.near and w.far and w.link and w.far_xl == "ready":
        yield "near xl says go", replace(w, near_xl="asked", near_in="go")
    # message 6
    if w.near and w.near_in == "go" and w.source is OwnershipState.MOVING:
        yield "handing", moved(w, S, OwnershipState.HANDING)
    if w.near and w.near_in == "go" and w.source is OwnershipState.HANDING:
        yield "go sent", replace(w, near_in="", forward="go" if w.link else "")
    if w.far and w.forward == "go":
        if w.destination is OwnershipState.RECEIVING:
            yield "cleared", driven(w, OwnershipState.CLEARED)
        elif w.destination is OwnershipState.CLEARED:
            yield "go passed on", replace(w, forward="", far_out="go")
    # the far xl
    if w.far_xl == "ready" and w.far_out == "go":
        yield "far xl unpauses", replace(w, far_xl="report", far_out="", copy=LIVE)
        yield "far xl cannot unpause", replace(w, far_xl="bad", far_out="")
    if w.far_xl == "ready" and not w.far and not w.far_out:
        yield "far xl sees the end, destroys", replace(w, far_xl="", copy=NONE)
    if w.far_xl == "report":
        yield "far xl reports", replace(w, far_xl="", far_in="ok")
    if w.far_xl == "bad":
        yield "far xl destroys its copy", replace(w, far_xl="cleaned", copy=NONE)
    if w.far_xl == "cleaned":
        yield "far xl gives back", replace(w, far_xl="", far_in="back")
    if w.far_xl == "stream" and not w.far:
        yield "far xl sees the stream cut", replace(w, far_xl="")
    # message 7 and the way back
    if w.far and w.far_in == "ok":
        if w.destination is OwnershipState.CLEARED:
            yield "running", driven(w, OwnershipState.RUNNING)
        elif w.destination is OwnershipState.RUNNING:
            yield "ok sent", replace(w, far_in="", far=False, backward="ok" if w.link else "")
    if w.far and w.far_in == "back":
        if w.destination is OwnershipState.CLEARED:
            yield "refused", driven(w, OwnershipState.REFUSED)
        elif w.destination is OwnershipState.REFUSED:
            yield "back sent", replace(w, far_in="", far=False, backward="back" if w.link else "")
    if w.near and w.backward == "ok":
        if w.source is OwnershipState.HANDING:
            yield "given", moved(w, S, OwnershipState.GIVEN)
        else:
            yield "ok passed on", replace(w, backward="", near_out="ok")
    if w.near and w.backward == "back":
        if w.source is OwnershipState.HANDING:
            yield "kept", moved(w, S, OwnershipState.KEPT)
        else:
            yield "back passed on", replace(w, backward="", near_out="back")
    # the near xl
    if w.near_xl == "asked" and w.near_out == "ok":
        yield "near xl destroys", replace(w, near_xl="", near_out="", guest=NONE)
    if w.near_xl == "asked" and w.near_out == "back":
        yield "near xl resumes", replace(w, near_xl="", near_out="", guest=LIVE)
    if not w.near and not w.near_out:
        if w.near_xl in ("stream", "gated"):
            yield "near xl sees the end, resumes", replace(w, near_xl="", guest=LIVE)
        elif w.near_xl == "asked":
            yield "near xl gives up", replace(w, near_xl="")


def driven(w: World, state: OwnershipState) -> World:
    """The far driver moves its record on; if it cannot, it gives the migration up."""
    return replace(w, far=False, far_in="", forward="") if w.broken else moved(w, D, state)


def disorderly(w: World) -> Iterator[Step]:
    """Deaths, cuts, restarts."""
    if w.near:
        yield "near driver dies", replace(w, near=False, near_in="")
    if w.near_xl:
        yield "near xl dies", replace(w, near_xl="", near_out="")
    if w.far:
        yield "far driver dies", replace(w, far=False, far_in="", forward="")
    if w.far_xl:
        yield "far xl dies", replace(w, far_xl="", far_out="")
    if w.link:
        yield "link cut", replace(w, link=False, forward="", backward="")
    else:
        # what the drivers carried is gone for ever, but the other host can be asked again
        yield "link back", replace(w, link=True, near=False, far=False, near_in="", far_in="")
    if not w.broken:
        yield "record lost on the destination", replace(w, broken="lost")
        yield "state directory read-only", replace(w, broken="read-only")
    elif w.broken == "read-only":
        yield "state directory repaired", replace(w, broken="")
    if w.copy is LIVE and not w.far_alive and (w.broken == "lost" or w.destination is OwnershipState.RUNNING):
        yield "the guest moves on", replace(w, copy=NONE, elsewhere=True)
    if not w.dead:
        yield "destination lost for ever", replace(
            w, far=False, far_xl="", far_in="", far_out="", forward="", copy=NONE, dead=True,
            restarted=w.restarted | ({D} if w.copy is LIVE else set()),
        )  # fmt: skip
    if len(w.restarted) < 2:
        if S not in w.restarted:
            down = {S} if w.guest is not NONE else set()
            yield "source restarted", replace(
                w, near=False, near_xl="", near_in="", near_out="", backward="", guest=NONE,
                restarted=w.restarted | down,
            )  # fmt: skip
        if D not in w.restarted:
            down = {D} if w.copy is LIVE else set()
            yield "destination restarted", replace(
                w, far=False, far_xl="", far_in="", far_out="", forward="", copy=NONE,
                restarted=w.restarted | down,
            )  # fmt: skip


def recover_destination(w: World, asked: bool = False) -> tuple[Action, World]:
    """One step of recovery on the destination."""
    if w.broken == "lost" or w.dead:
        return Action.NOTHING, w
    action = decide(D, w.destination, w.far_alive, w.copy, asked=asked)
    if w.broken and action in (Action.RUN, Action.REFUSE):
        return Action.NOTHING, w
    match action:
        case Action.STOP:  # the driver first: its xl sees the end of its input, and cleans up
            w = replace(w, far=False, far_in="", forward="")
        case Action.DESTROY:
            w = replace(w, copy=NONE)
        case Action.FINISH:
            w = replace(w, copy=LIVE)
        case Action.RUN:
            w = moved(w, D, OwnershipState.RUNNING)
        case Action.REFUSE:
            w = moved(w, D, OwnershipState.REFUSED)
    return action, w


def answer(w: World) -> PeerAnswer:
    """What the destination says."""
    if w.dead or not w.link:
        return NoAnswer.UNREACHABLE
    if w.broken != "lost":
        return w.destination
    return {NONE: NoAnswer.ABSENT, STILL: NoAnswer.UNCLEAR, LIVE: NoAnswer.PRESENT}[w.copy]


def recover_source(w: World, heard: PeerAnswer = NoAnswer.NOT_ASKED) -> tuple[Action, World]:
    """One step of a process that recovers on the source and has heard this answer. Asked, the far side settles its
    own as far as it goes, step by step, before it answers."""
    action = decide(S, w.source, w.near_alive, w.guest, heard)
    match action:
        case Action.ASK if w.link and (after := recover_destination(w, asked=True)[1]) != w:
            w = after
        case Action.ASK:
            w = replace(w, heard=w.heard | {answer(w)})
        case Action.KEEP:
            w = moved(w, S, OwnershipState.KEPT)
        case Action.GIVE:
            w = moved(w, S, OwnershipState.GIVEN)
        case Action.RESUME:
            w = replace(w, guest=LIVE)
        case Action.DESTROY:
            w = replace(w, guest=NONE)
        case Action.REMOVE:
            w = moved(w, S, OwnershipState.REMOVED)
    return action, w


def declared(w: World) -> World:
    """The administrator declares what is true: the guest runs nowhere else, because the destination is lost, or
    says that it has nothing of it."""
    nothing = (w.dead or answer(w) is NoAnswer.ABSENT) and not w.elsewhere
    return replace(w, heard=w.heard | {NoAnswer.LOST}) if nothing and w.source is OwnershipState.HANDING else w


def moved(w: World, role: Role, state: OwnershipState) -> World:
    check(role, w.source if role is S else w.destination, state)
    return replace(w, source=state) if role is S else replace(w, destination=state)


def steps(w: World) -> Iterator[Step]:
    yield from orderly(w)
    yield from disorderly(w)
    yield "recover on the source", recover_source(w)[1]
    for heard in w.heard:
        yield f"recover on the source, having heard {heard}", recover_source(w, heard)[1]
    yield "the administrator declares", declared(w)
    yield "recover on the destination", recover_destination(w)[1]


def reach(following: Callable[[World], Iterator[Step]]) -> Found:
    """Every state that can be reached, with how it was reached first."""
    start = World()
    found: Found = {start: None}
    front = [start]
    while front:
        ahead = []
        for world in front:
            for name, after in following(world):
                if after not in found:
                    found[after] = (world, name)
                    ahead.append(after)
        front = ahead
    return found


def story(found: Found, world: World) -> str:
    """How it came to this, for a failing test."""
    lines = [str(world)]
    while (before := found[world]) is not None:
        world, name = before
        lines.append(name)
    return "\n".join(reversed(lines))


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
    from xenplugin.migrate import ownership

    honest = ownership._handing
    monkeypatch.setattr(
        ownership, "_handing", lambda peer, guest: wrong if peer is planted else honest(peer, guest)
    )
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
