"""Who owns the guest: the states of both sides' records, and what to do about a migration that was interrupted.

Strategy: tables and one pure function, so that every interleaving can be enumerated (tests/xenplugin/migrate/
test_ownership.py does: a breadth-first search over both hosts, their processes, the link and all crashes).

    source       moving --> handing --> given --> removed
                    |          |
                    +----------+------> kept ---> removed
    destination  receiving --> cleared --> running
                    |             |
                    +-------------+------> refused

A state is on disk before what it stands for happens: `handing` before message 6 ("you are cleared to unpause")
leaves the source, `cleared` before the far xl gets it, `running` before message 7 goes back, `given` before the
near xl gets that and destroys its domain. So whoever finds a record knows what can *not* have happened yet:

- moving: message 6 has not left, the far guest can never run: it is resumed here without asking anybody.
- handing: nobody here can know. Only the far side can, and only once nothing changes there any more.
- receiving: the far xl never got message 6. Its copy may be destroyed; `refused` says it for ever (a fence).
- cleared: the far xl may have got it. Once that xl is gone, its domain says what happened.

`running` and `refused` are answers and stay until the source has heard them.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto
from typing import TypeAlias

from xenplugin.errors import OwnershipError


class Role(StrEnum):
    """Which side of a migration a record speaks for."""

    SOURCE = "source"
    DESTINATION = "destination"


class OwnershipState(StrEnum):
    """What a record says; see above."""

    MOVING = "moving"  #: the guest is this host's; message 6 has not been passed on
    HANDING = "handing"  #: message 6 may have left
    GIVEN = "given"  #: the guest is the peer's; what is left of it here goes
    KEPT = "kept"  #: the guest is this host's; it is to be resumed here if it stands still
    REMOVED = "removed"  #: nothing is left to do on this host
    RECEIVING = "receiving"  #: the guest is the peer's; message 6 has not been passed on
    CLEARED = "cleared"  #: message 6 came and may have been passed on
    RUNNING = "running"  #: the guest is this host's
    REFUSED = "refused"  #: message 6 can never take effect here any more, and nothing of the guest runs here


#: state -> states that may follow.
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
#: Nothing is left to do here but to let the peer know (source) or to be asked by it (destination).
FINAL = frozenset(state for table in TRANSITIONS.values() for state, following in table.items() if not following)


def check(role: Role, before: OwnershipState, after: OwnershipState) -> None:
    """Raises OwnershipError unless the record of `role` may go from `before` to `after`."""
    if after not in TRANSITIONS[role].get(before, ()):
        raise OwnershipError(
            f"the {role}'s record of this migration says {before}: it cannot become {after}",
            hint="xenplugin status on both hosts says what happened",
        )


class GuestPresence(Enum):
    """What is there of the guest on this host."""

    NONE = auto()  #: no domain of this migration
    STILL = auto()  #: source: suspended. Destination: not yet under its own name, or not yet unpaused
    LIVE = auto()  #: a domain in its own right


class NoAnswer(Enum):
    """Why there is no word of the peer's."""

    NOT_ASKED = auto()
    UNREACHABLE = auto()
    UNKNOWN = auto()  #: it answered that it has no record of this migration
    LOST = auto()  #: the administrator says that it will never come back


PeerAnswer: TypeAlias = OwnershipState | NoAnswer


class Action(Enum):
    """What to do next; afterwards the facts are to be looked at again."""

    NOTHING = auto()  #: settled
    WAIT = auto()  #: processes of the migration still run
    STOP = auto()  #: end them: the source has given up on them
    ASK = auto()  #: the peer
    UNDECIDED = auto()
    CONFLICT = auto()  #: the guest is the peer's and runs here: somebody started it by hand
    KEEP = auto()  #: record `kept`
    GIVE = auto()  #: record `given`
    RESUME = auto()  #: put back its name, resume it
    DESTROY = auto()  #: the domain that is left
    REMOVE = auto()  #: record `removed`
    FINISH = auto()  #: give it its name, unpause it
    RUN = auto()  #: record `running`
    REFUSE = auto()  #: remove what was made for it, record `refused`


def decide(
    role: Role,
    state: OwnershipState,
    alive: bool,
    guest: GuestPresence,
    peer: PeerAnswer = NoAnswer.NOT_ASKED,
    *,
    asked: bool = False,
    taken_back: bool = False,
) -> Action:
    """What recovery does next with a record in `state` on this host.

    `alive`: a process of the migration (the driver, or the xl that it drives) still runs on this host. Of the
    destination only: `asked`, it is the source that wants to know; `taken_back`, the source says that it has kept
    the guest (a host that was taken for lost came back).

    | role        | state     | more                         | action                             |
    |-------------|-----------|------------------------------|------------------------------------|
    | any         | final     |                              | NOTHING                            |
    | destination | receiving | alive, asked                 | STOP                               |
    | any         | any other | alive                        | WAIT                               |
    | source      | moving    |                              | KEEP                               |
    | source      | handing   | peer not asked               | ASK                                |
    | source      | handing   | peer running                 | GIVE                               |
    | source      | handing   | peer refused, or lost        | KEEP                               |
    | source      | handing   | peer says anything else      | UNDECIDED                          |
    | source      | given     | guest none / still / live    | REMOVE / DESTROY / CONFLICT        |
    | source      | kept      | guest none, live / still     | REMOVE / RESUME                    |
    | destination | receiving | guest none / still / live    | REFUSE / DESTROY / CONFLICT        |
    | destination | cleared   | guest none / still / live    | REFUSE / FINISH / RUN              |
    | destination | cleared   | the same, taken back         | REFUSE / DESTROY / CONFLICT        |

    A peer that says `cleared` or `receiving` has processes at work: their outcome is open (the far xl may fail to
    unpause, and destroys its copy then), so the source must not act on it.
    """
    if state in FINAL:
        return Action.NOTHING
    if alive:
        return Action.STOP if asked and state is OwnershipState.RECEIVING else Action.WAIT
    if state is OwnershipState.HANDING:
        return _handing(peer)
    if taken_back and state is OwnershipState.CLEARED:
        state = OwnershipState.RECEIVING
    return _ALONE[state, guest]


def _handing(peer: PeerAnswer) -> Action:
    match peer:
        case NoAnswer.NOT_ASKED:
            return Action.ASK
        case OwnershipState.RUNNING:
            return Action.GIVE
        case OwnershipState.REFUSED | NoAnswer.LOST:
            return Action.KEEP
    return Action.UNDECIDED


#: What needs no word of the peer's.
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
