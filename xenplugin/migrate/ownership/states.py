"""Who owns the guest: the states of both sides' records, and the decisions of recovery. Pure.

There are tables and one function, so that every interleaving can be enumerated: tests/xenplugin/migrate/
test_ownership.py does it, by a breadth-first search over both hosts, their processes, the link and all crashes.

    source       moving --> handing --> given --> removed
                    |          |
                    +----------+------> kept ---> removed
    destination  receiving --> cleared --> running
                    |             |
                    +-------------+------> refused

A state is on disk before what it stands for happens: `handing` before message 6 ("you are cleared to unpause")
leaves the source, `cleared` before the far xl gets it, `running` before message 7 goes back, `given` before the
near xl gets that and destroys its domain. So a record says what can *not* have happened yet:

- moving: message 6 has not left, so the far guest can never run: the guest is resumed here without asking the peer.
- handing: its disks here have given up their names (migrate/old_disks.py). Where it runs cannot be known on this
  host. Only the far side knows, once its processes have ended.
- receiving: the far xl never got message 6. Its copy may be destroyed; `refused` records that for ever (a fence).
- cleared: the far xl may have got message 6. Once that xl has ended, its domain shows what happened.

`running` and `refused` are answers, and stay until the source has read them.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto
from typing import TypeAlias

from xenplugin.errors import OwnershipError

#: What to do about a domain with the guest's uuid on another host.
COPY_HINT = (
    "run `xenplugin recover` there; if it stays, it is a copy that was started by hand: shut down the wrong one"
)


class Role(StrEnum):
    """The side of a migration that a record belongs to."""

    SOURCE = "source"
    DESTINATION = "destination"


class OwnershipState(StrEnum):
    """The state of a record; see the module's docstring."""

    MOVING = "moving"  #: the guest is this host's; message 6 has not been sent
    HANDING = "handing"  #: message 6 may have left
    GIVEN = "given"  #: the guest is the peer's; what is left of it here is destroyed
    KEPT = "kept"  #: the guest is this host's; it is resumed here if it is suspended
    REMOVED = "removed"  #: nothing is left to do on this host
    RECEIVING = "receiving"  #: the guest is the peer's; message 6 has not reached xl
    CLEARED = "cleared"  #: message 6 has arrived, and may have reached xl
    RUNNING = "running"  #: the guest is this host's
    REFUSED = "refused"  #: message 6 can never take effect here, and nothing of the guest runs here


#: For each role: state -> the states that may follow it.
TRANSITIONS: dict[Role, dict[OwnershipState, frozenset[OwnershipState]]] = {
    Role.SOURCE: {
        OwnershipState.MOVING: frozenset({OwnershipState.HANDING, OwnershipState.KEPT}),
        OwnershipState.HANDING: frozenset({OwnershipState.GIVEN, OwnershipState.KEPT}),
        OwnershipState.GIVEN: frozenset({OwnershipState.REMOVED}),
        OwnershipState.KEPT: frozenset({OwnershipState.REMOVED}),
        OwnershipState.REMOVED: frozenset(),
    },
    Role.DESTINATION: {
        OwnershipState.RECEIVING: frozenset({OwnershipState.CLEARED, OwnershipState.REFUSED}),
        OwnershipState.CLEARED: frozenset({OwnershipState.RUNNING, OwnershipState.REFUSED}),
        OwnershipState.RUNNING: frozenset(),
        OwnershipState.REFUSED: frozenset(),
    },
}
FIRST = {Role.SOURCE: OwnershipState.MOVING, Role.DESTINATION: OwnershipState.RECEIVING}
#: States in which nothing is left to do here, except to inform the peer (source) or to answer it (destination).
FINAL = frozenset(state for table in TRANSITIONS.values() for state, following in table.items() if not following)


def check(role: Role, before: OwnershipState, after: OwnershipState) -> None:
    """Raise OwnershipError unless a record of `role` may go from `before` to `after`."""
    if after not in TRANSITIONS[role].get(before, ()):
        raise OwnershipError(
            f"the {role}'s record of this migration says {before}: it cannot become {after}",
            hint="`xenplugin status` on both hosts shows what happened",
        )


class GuestPresence(Enum):
    """What there is of the guest on this host."""

    NONE = auto()  #: no domain of this migration
    STILL = auto()  #: source: suspended. Destination: still under its interim name, or not unpaused
    LIVE = auto()  #: a domain that runs, or could run, under the guest's own name


class NoAnswer(Enum):
    """Why there is no answer from the peer."""

    NOT_ASKED = auto()
    UNREACHABLE = auto()  #: no connection to it could be made
    ELSEWHERE = auto()  #: another machine answered in its place
    UNCLEAR = auto()  #: it may have been reached, but gave no answer that can be used
    ABSENT = auto()  #: it has no valid record of this migration, and no domain of the guest
    PRESENT = auto()  #: it has no valid record of this migration, but a domain of the guest runs there
    LOST = auto()  #: the administrator has declared that the guest does not run there, and never will


PeerAnswer: TypeAlias = OwnershipState | NoAnswer


class Action(Enum):
    """What recovery does next. After each action it looks at the facts again."""

    NOTHING = auto()  #: settled
    WAIT = auto()  #: processes of the migration still run
    STOP = auto()  #: end these processes: the source has given up on them
    ASK = auto()  #: ask the peer
    UNDECIDED = auto()
    CONFLICT = auto()  #: the guest is the peer's and runs here: it was started by hand
    KEEP = auto()  #: record `kept`
    GIVE = auto()  #: record `given`
    RESUME = auto()  #: restore its name, resume it
    GIVE_BACK = auto()  #: give its disks their names back
    DESTROY = auto()  #: destroy the domain that is left
    REMOVE = auto()  #: record `removed`
    FINISH = auto()  #: give it its name, unpause it
    RUN = auto()  #: record `running`
    REFUSE = auto()  #: remove the files made for it, record `refused`


def decide(
    role: Role,
    state: OwnershipState,
    alive: bool,
    guest: GuestPresence,
    peer: PeerAnswer = NoAnswer.NOT_ASKED,
    *,
    asked: bool = False,
    taken_back: bool = False,
    aside: bool = False,
) -> Action:
    """Return what recovery does next about a record in `state` on this host.

    `alive`: a process of the migration (the driver, or the xl that it drives) still runs on this host. For the
    destination only: `asked`: the source asks; `taken_back`: the source says that it has kept the guest (a host
    that had been declared lost came back). For the source only: `aside`: there is a record that its disks lie
    aside.

    | role        | state     | more                         | action                             |
    |-------------|-----------|------------------------------|------------------------------------|
    | any         | final     |                              | NOTHING                            |
    | destination | receiving | alive, asked                 | STOP                               |
    | any         | any other | alive                        | WAIT                               |
    | source      | moving    |                              | KEEP                               |
    | source      | handing   | peer not asked               | ASK                                |
    | source      | handing   | peer running                 | GIVE                               |
    | source      | handing   | peer refused, or lost        | KEEP                               |
    | source      | handing   | peer present, guest none     | GIVE                               |
    | source      | handing   | peer says anything else      | UNDECIDED                          |
    | source      | given     | guest none / still / live    | REMOVE / DESTROY / CONFLICT        |
    | source      | kept      | guest none, live / still     | REMOVE / RESUME                    |
    | source      | kept      | the same, disks aside        | GIVE_BACK / RESUME / GIVE_BACK     |
    | destination | receiving | guest none / still / live    | REFUSE / DESTROY / CONFLICT        |
    | destination | cleared   | guest none / still / live    | REFUSE / FINISH / RUN              |
    | destination | cleared   | the same, taken back         | REFUSE / DESTROY / CONFLICT        |

    A peer that answers `cleared` or `receiving` has processes at work, or cannot write its record. Their outcome is
    open (the far xl may fail to unpause, and then destroys its copy), so the source must not act on it.

    A peer without a valid record proves nothing. Its domain may be a stale copy that was started by hand, so the
    guest here is not destroyed for it, but not resumed beside it either; only if nothing is left here, nothing can
    be lost. A domain that is not there may have run and moved on, so `absent` needs the administrator's word."""
    if state in FINAL:
        return Action.NOTHING
    if alive:
        return Action.STOP if asked and state is OwnershipState.RECEIVING else Action.WAIT
    if state is OwnershipState.HANDING:
        return _handing(peer, guest)
    if taken_back and state is OwnershipState.CLEARED:
        state = OwnershipState.RECEIVING
    action = _ALONE[state, guest]
    # The guest first: it does not notice what its disks are called, and a name may have been taken meanwhile.
    return Action.GIVE_BACK if (state, action) == (OwnershipState.KEPT, Action.REMOVE) and aside else action


def _handing(peer: PeerAnswer, guest: GuestPresence) -> Action:
    match peer:
        case NoAnswer.NOT_ASKED:
            return Action.ASK
        case OwnershipState.RUNNING:
            return Action.GIVE
        case OwnershipState.REFUSED | NoAnswer.LOST:
            return Action.KEEP
        case NoAnswer.PRESENT if guest is GuestPresence.NONE:
            return Action.GIVE
    return Action.UNDECIDED


#: Decisions that need no answer from the peer.
_ALONE: dict[tuple[OwnershipState, GuestPresence], Action] = {
    **{(OwnershipState.MOVING, guest): Action.KEEP for guest in GuestPresence},
    (OwnershipState.GIVEN, GuestPresence.NONE): Action.REMOVE,
    (OwnershipState.GIVEN, GuestPresence.STILL): Action.DESTROY,
    (OwnershipState.GIVEN, GuestPresence.LIVE): Action.CONFLICT,
    (OwnershipState.KEPT, GuestPresence.NONE): Action.REMOVE,
    (OwnershipState.KEPT, GuestPresence.STILL): Action.RESUME,
    (OwnershipState.KEPT, GuestPresence.LIVE): Action.REMOVE,
    (OwnershipState.RECEIVING, GuestPresence.NONE): Action.REFUSE,
    (OwnershipState.RECEIVING, GuestPresence.STILL): Action.DESTROY,
    (OwnershipState.RECEIVING, GuestPresence.LIVE): Action.CONFLICT,
    (OwnershipState.CLEARED, GuestPresence.NONE): Action.REFUSE,
    (OwnershipState.CLEARED, GuestPresence.STILL): Action.FINISH,
    (OwnershipState.CLEARED, GuestPresence.LIVE): Action.RUN,
}
