"""The state tables keep each direction to its frames."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenplugin.errors import PeerError
from xenplugin.wire import states
from xenplugin.wire.body import Type

from .samples import COMMON, DOMAIN, TABLES

FORWARD = {Type.IMAGE, Type.CHUNK, Type.ZEROS, Type.END, Type.ERROR, Type.PING}
BACKWARD = {Type.WELCOME, Type.INDEX, Type.INDEX_RUN, Type.ACK, Type.DONE, Type.ERROR, Type.PING}
DOMAIN_FORWARD = FORWARD - {Type.CHUNK, Type.ZEROS} | {Type.SEGMENT, Type.NOTE}
DOMAIN_BACKWARD = BACKWARD - {Type.INDEX, Type.INDEX_RUN} | {Type.ANSWER, Type.NOTE}


def test_tables_keep_each_side_to_its_frames() -> None:
    for name, table in TABLES.items():
        allowed = BACKWARD if "answers" in name else FORWARD
        if name in DOMAIN:
            allowed = DOMAIN_BACKWARD if "answers" in name else DOMAIN_FORWARD
        assert {kind for _, kind in table} <= allowed
        assert not any(state is states.State.FAILED for state, _ in table)
        opening = {kind for state, kind in table if state is states.State.START}
        first = Type.WELCOME if "answers" in name else Type.IMAGE
        assert opening == ({first} if name == "file" else {first, Type.ERROR})
        assert (states.State.FLOW, first) not in table
    assert {kind for _, kind in TABLES["file"]} == {Type.IMAGE, Type.CHUNK, Type.ZEROS, Type.END}
    for name in ("data", "answers", "domain data"):
        assert not {Type.END, Type.DONE, Type.NOTE} & {kind for _, kind in TABLES[name]}
    assert {kind for _, kind in TABLES["control"]} == FORWARD
    assert {kind for _, kind in TABLES["control answers"]} == BACKWARD
    assert {kind for _, kind in TABLES["domain control"]} == DOMAIN_FORWARD
    assert {kind for _, kind in TABLES["domain control answers"]} == DOMAIN_BACKWARD


@given(st.sampled_from(sorted(TABLES)), st.lists(st.sampled_from(Type), max_size=12))
@COMMON
def test_a_machine_walks_its_table(name: str, kinds: list[Type]) -> None:
    machine, state = states.Machine(TABLES[name]), states.State.START
    for kind in kinds:
        if (state, kind) in TABLES[name]:
            machine.step(kind)
            state = TABLES[name][state, kind]
        else:
            with pytest.raises(PeerError):
                machine.step(kind)
        assert machine.state is state


def test_after_the_end_only_pings_errors_notes_and_what_was_lost_are_allowed() -> None:
    for (name, table), kind in product(TABLES.items(), Type):
        after = table.get((states.State.ENDED, kind))
        expected = {Type.PING: states.State.ENDED, Type.ERROR: states.State.FAILED}
        if name == "domain control":
            expected |= dict.fromkeys((Type.NOTE, Type.SEGMENT), states.State.ENDED)
        if name == "control":
            expected |= dict.fromkeys((Type.CHUNK, Type.ZEROS), states.State.ENDED)
        assert after in (None, expected.get(kind)), name
