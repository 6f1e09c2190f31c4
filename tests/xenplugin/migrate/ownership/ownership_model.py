"""A model of both hosts: every interleaving of a migration's end, of crashes and of recovery, enumerated.

There are the drivers (transport and receive) with their records, the two xl with their pipes, and the link
between; the old disk at the source, and the copy of it that has arrived. Each step of each process is a
transition. So is a limit that is reached (of downtime, or of no progress) or a user who gives the migration up;
the death of any process at any point, a cut of the link, a restart of either host, a restarted source that starts
the guest from its disk by itself, the loss of the destination or of its record, a state directory that becomes
read-only; and each single step of recovery on either side. Any number of administrators recover on both at once:
an answer that one of them on the source has heard may be acted upon at any later time. A breadth-first search
visits every state that can be reached. What is decided in them is decided by ownership.decide itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from xenplugin.migrate.ownership.states import (
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
    end: str = (
        ""  # for the near driver: given up; closed, so that its xl sees the end; or message 6 is about to leave
    )
    disk: str = "named"  # at the source: named; recorded, and about to be renamed; aside
    arrived: str = ""  # at the destination: nothing with the disk's name; named, complete; recorded; aside
    again: bool = False  # the source was restarted and started the guest from its disk by itself: another domain
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
    joined = w.near and w.far and w.link
    if joined and w.near_xl == "gated" and w.destination is OwnershipState.RECEIVING and not w.arrived:
        yield "disk complete there", replace(w, arrived="named")
    if joined and w.far_xl == "stream" and w.near_xl == "gated" and w.arrived == "named":
        yield "stream loaded", replace(w, far_xl="ready", copy=STILL)
    if joined and w.near_xl == "gated" and w.far_xl == "ready" and w.end != "closed":
        yield "near xl says go", replace(w, near_xl="asked", near_in="go")
    # the old disk, once the disks are durable over there; what a driver has begun it ends, also if it has given up
    if w.near and w.near_xl != "stream" and w.arrived and w.source is OwnershipState.MOVING:
        if w.disk == "named":
            yield "old disk recorded", replace(w, disk="recorded")
        if w.disk == "recorded":
            yield "old disk aside", replace(w, disk="aside")
    # message 6
    if w.near and w.near_in == "go" and w.disk == "aside" and not w.end:
        yield "no way back", replace(w, end="handing")
    if w.near and w.end == "handing" and w.source is OwnershipState.MOVING:
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
            yield "refused", refusing(w) or driven(w, OwnershipState.REFUSED)
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
    if (not w.near or w.end == "closed") and not w.near_out:
        if w.near_xl in ("stream", "gated"):
            yield "near xl sees the end, resumes", replace(w, near_xl="", guest=LIVE)
        elif w.near_xl == "asked":
            yield "near xl gives up", replace(w, near_xl="")


def refusing(w: World) -> World | None:
    """The next step of putting the copy that has arrived aside, which comes before the record says `refused`."""
    following = {"named": "recorded", "recorded": "aside"}
    return replace(w, arrived=following[w.arrived]) if w.arrived in following and not w.broken else None


def given_up(w: World) -> Iterator[Step]:
    """A limit is reached, nothing moves any more, or the user wants it: the near driver gives up, in order."""
    if w.near and w.near_xl and not w.end:
        yield "given up", replace(w, end="given up")
    if w.near and w.end == "given up":
        yield "near xl's pipes closed", replace(w, end="closed", near_in="")
    if w.near and w.end == "closed" and not w.near_xl:
        yield "near driver ends", replace(w, near=False)


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


def careless(w: World) -> Iterator[Step]:
    """A restarted source starts its guests by itself, as /etc/xen/auto says. That needs a disk by its name."""
    if S in w.restarted and w.guest is NONE and not w.near_alive and w.disk != "aside":
        yield "source starts its guest", replace(w, again=True)


def recover_destination(w: World, asked: bool = False, taken_back: bool = False) -> tuple[Action, World]:
    """One step of recovery on the destination."""
    if w.broken == "lost" or w.dead:
        return Action.NOTHING, w
    action = decide(D, w.destination, w.far_alive, w.copy, asked=asked, taken_back=taken_back)
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
            w = refusing(w) or moved(w, D, OwnershipState.REFUSED)
    return action, w


def answer(w: World) -> PeerAnswer:
    """What the destination says."""
    if w.dead or not w.link:
        return NoAnswer.UNREACHABLE
    if w.broken != "lost":
        return w.destination
    return {NONE: NoAnswer.ABSENT, STILL: NoAnswer.UNCLEAR, LIVE: NoAnswer.PRESENT}[w.copy]


def recover_source(w: World, heard: PeerAnswer = NoAnswer.NOT_ASKED) -> tuple[Action, World]:
    """One step of a process that recovers on the source and has heard this answer. A destination that is asked
    first takes all steps of its own recovery that it can, then answers."""
    action = decide(S, w.source, w.near_alive, w.guest, heard, aside=w.disk != "named")
    match action:
        case Action.ASK if w.link and (after := recover_destination(w, asked=True)[1]) != w:
            w = after
        case Action.ASK:
            w = replace(w, heard=w.heard | {answer(w)})
        case Action.KEEP:
            w = moved(w, S, OwnershipState.KEPT)
        case Action.GIVE:
            w = moved(w, S, OwnershipState.GIVEN)
        case Action.GIVE_BACK:
            w = replace(w, disk="named")
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
    yield from given_up(w)
    yield from disorderly(w)
    yield from careless(w)
    yield "recover on the source", recover_source(w)[1]
    for heard in w.heard:
        yield f"recover on the source, having heard {heard}", recover_source(w, heard)[1]
    if w.source is OwnershipState.REMOVED and w.link:
        yield "the source says that it is settled", recover_destination(w, asked=True, taken_back=True)[1]
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
