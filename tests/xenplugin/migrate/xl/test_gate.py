"""The gate: however the bytes are cut, nothing that must wait passes before its time, and all of it after."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.xenplugin.migrate.xl.test_xl_protocol import BAD, FORWARD, message2, stream, text
from xenplugin.migrate.xl.gate import Gate
from xenplugin.migrate.xl.xl_protocol import (
    CLEARED,
    Backward,
    Cleared,
    Forward,
    GuestConfig,
    TakenBack,
    Unpaused,
    XlEvent,
)
from xenplugin.migrate.xl.xl_stream import StreamEnd

HEAD = len(message2(text()))
END = HEAD + len(stream())
CUTS = st.lists(st.integers(0, len(FORWARD)), max_size=12)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(CUTS)
def test_the_gate_holds_back_the_last_records(cuts: list[int]) -> None:
    gate = Gate(Forward(), (StreamEnd, Cleared))
    passed = b""
    seen: list[type[XlEvent]] = []
    waiting: list[type[XlEvent]] = []
    last: dict[type[XlEvent], int] = {GuestConfig: HEAD, StreamEnd: END, Cleared: END + len(CLEARED)}
    for piece in pieces(FORWARD, cuts):
        passing, events = gate.feed(piece)
        passed += passing
        assert len(passed) < HEAD or GuestConfig in seen
        for event in events:
            if type(event) in last:
                waiting.append(type(event))
        for kind in waiting:
            # its last byte at the least is held back until it is released
            assert len(passed) < last[kind]
            passed += gate.release()
            seen.append(kind)
        waiting = []
        assert FORWARD.startswith(passed)
    assert passed == FORWARD
    assert seen == [GuestConfig, StreamEnd, Cleared]


@given(CUTS)
def test_results_wait_for_their_record(cuts: list[int]) -> None:
    gate = Gate(Backward(), (Unpaused, TakenBack))
    passed = b""
    for piece in pieces(BAD, cuts):
        passing, events = gate.feed(piece)
        passed += passing
        for event in events:
            if isinstance(event, Unpaused | TakenBack):
                assert len(passed) < event.end
                passed += gate.release()
        assert BAD.startswith(passed)
    assert passed == BAD


def test_one_release_opens_one_stop() -> None:
    gate = Gate(Forward(), (StreamEnd, Cleared))
    assert gate.feed(FORWARD)[0] == b""
    assert gate.release() == FORWARD[: END - 8]
    assert gate.release() == FORWARD[END - 8 : END]
    assert gate.release() == FORWARD[END:]
