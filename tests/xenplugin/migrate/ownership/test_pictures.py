"""The pictures of migrate/ownership/states.py say what its tables say."""

from __future__ import annotations

import re

import pytest

from xenplugin.migrate.ownership import states
from xenplugin.migrate.ownership.states import (
    FINAL,
    FIRST,
    TRANSITIONS,
    Action,
    GuestPresence,
    NoAnswer,
    OwnershipState,
    Role,
    decide,
)

ROW = re.compile(r"\| (\S+) +\| (\S+(?: other)?) +\| (.*?) +\| ([A-Z /]+?) +\|")
GUESTS = {"none": GuestPresence.NONE, "still": GuestPresence.STILL, "live": GuestPresence.LIVE}


def test_the_picture_names_every_state_and_transition() -> None:
    text = states.__doc__ or ""
    drawn = text[text.index("    source ") : text.index("A state is on disk")]
    for role in Role:
        for state in TRANSITIONS[role]:
            assert str(state) in drawn
    # "a --> b", and what the line under it joins from below: "+------> c"
    assert set(re.findall(r"(\w+) -+> (?=(\w+))", drawn)) == {
        ("moving", "handing"), ("handing", "given"), ("given", "removed"), ("kept", "removed"),
        ("receiving", "cleared"), ("cleared", "running"),
    }  # fmt: skip
    assert set(re.findall(r"\+-+> (\w+)", drawn)) == {"kept", "refused"}
    pairs = (("moving", "kept"), ("handing", "kept"), ("receiving", "refused"), ("cleared", "refused"))
    joined = {(OwnershipState(a), OwnershipState(b)) for a, b in pairs}
    straight = {(OwnershipState(a), OwnershipState(b)) for a, b in re.findall(r"(\w+) -+> (?=(\w+))", drawn)}
    tables = {(a, b) for table in TRANSITIONS.values() for a, following in table.items() for b in following}
    assert straight | joined == tables


def rows() -> list[tuple[str, ...]]:
    lines = (decide.__doc__ or "").splitlines()
    found = [match.groups() for line in lines if (match := ROW.search(line))]
    assert len(found) >= 12
    return found


@pytest.mark.parametrize("row", rows(), ids=lambda row: " ".join(row))
def test_the_table_of_decisions(row: tuple[str, ...]) -> None:
    who, which, more, actions = row
    roles = list(Role) if who == "any" else [Role(who)]
    wanted = [Action[name] for name in actions.split(" / ")]
    for role in roles:
        if which == "final":
            states = sorted(FINAL & set(TRANSITIONS[role]))
        elif which == "any other":
            states = sorted(set(TRANSITIONS[role]) - FINAL)
        else:
            states = [OwnershipState(which)]
        for state in states:
            for guest, action in cases(more, wanted):
                given = {
                    "asked": "asked" in more and "peer" not in more,
                    "taken_back": "taken back" in more,
                    "aside": "disks aside" in more,
                }
                for peer in peers(more):
                    alive = "alive" in more
                    assert decide(role, state, alive, guest, peer, **given) is action


def cases(more: str, wanted: list[Action]) -> list[tuple[GuestPresence, Action]]:
    """(guest, action) of "guest none, live / still" and the like; any guest where none is named."""
    if "guest" not in more and "the same" not in more:
        return [(guest, wanted[0]) for guest in GuestPresence]
    named = more.removeprefix("peer present, ").removeprefix("guest ")
    groups = named.split(" / ") if "guest" in more else ["none", "still", "live"]
    return [
        (GUESTS[name], action) for group, action in zip(groups, wanted, strict=True) for name in group.split(", ")
    ]


@pytest.mark.parametrize("guest", [GuestPresence.STILL, GuestPresence.LIVE])
def test_what_is_left_here_is_not_destroyed_without_a_record_there(guest: GuestPresence) -> None:
    assert decide(Role.SOURCE, OwnershipState.HANDING, False, guest, NoAnswer.PRESENT) is Action.UNDECIDED


def peers(more: str) -> list[states.PeerAnswer]:
    named: dict[str, list[states.PeerAnswer]] = {
        "peer not asked": [NoAnswer.NOT_ASKED],
        "peer running": [OwnershipState.RUNNING],
        "peer refused, or lost": [OwnershipState.REFUSED, NoAnswer.LOST],
        "peer present, guest none": [NoAnswer.PRESENT],
        "peer says anything else": [
            NoAnswer.UNREACHABLE,
            NoAnswer.ELSEWHERE,
            NoAnswer.UNCLEAR,
            NoAnswer.ABSENT,
            OwnershipState.RECEIVING,
            OwnershipState.CLEARED,
        ],
    }
    return named.get(more, [NoAnswer.NOT_ASKED])


def test_each_side_begins_where_nothing_is_given() -> None:
    assert FIRST == {Role.SOURCE: OwnershipState.MOVING, Role.DESTINATION: OwnershipState.RECEIVING}
    assert {OwnershipState.REMOVED, OwnershipState.RUNNING, OwnershipState.REFUSED} == FINAL
