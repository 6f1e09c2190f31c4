"""Which frame may come in which state: one table for each kind of session, direction and carrier. Pure.

A row is (state, frame type) -> next state. A frame without a row is refused with PeerError. The picture in
docs/architecture.md is drawn from these tables.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TypeAlias

from xenplugin.errors import PeerError
from xenplugin.wire.body import Type


class State(Enum):
    """Where one direction of a connection or file stands."""

    START = auto()  #: only the preamble was sent
    FLOW = auto()  #: the first frame was sent; data flows
    ENDED = auto()  #: END or DONE was sent
    FAILED = auto()  #: an ERROR was sent


Table: TypeAlias = dict[tuple[State, Type], State]

_DATA: Table = {
    (State.START, Type.IMAGE): State.FLOW,
    (State.FLOW, Type.CHUNK): State.FLOW,
    (State.FLOW, Type.ZEROS): State.FLOW,
}
_ALWAYS: Table = {
    (State.START, Type.ERROR): State.FAILED,
    (State.FLOW, Type.ERROR): State.FAILED,
    (State.FLOW, Type.PING): State.FLOW,
}
_AFTER: Table = {(State.ENDED, Type.ERROR): State.FAILED, (State.ENDED, Type.PING): State.ENDED}
#: What a lost connection had not delivered is sent again, over the control channel if there is no other way.
_AGAIN: Table = {(State.ENDED, Type.CHUNK): State.ENDED, (State.ENDED, Type.ZEROS): State.ENDED}
_END: Table = {(State.FLOW, Type.END): State.ENDED}

FORWARD_FILE: Table = {**_DATA, **_END}
FORWARD_DATA: Table = {**_DATA, **_ALWAYS}
FORWARD_CONTROL: Table = {**_DATA, **_END, **_ALWAYS, **_AFTER, **_AGAIN}
BACKWARD_DATA: Table = {
    (State.START, Type.WELCOME): State.FLOW,
    (State.FLOW, Type.ACK): State.FLOW,
    **_ALWAYS,
}
BACKWARD_CONTROL: Table = {
    **BACKWARD_DATA,
    (State.FLOW, Type.INDEX): State.FLOW,
    (State.FLOW, Type.INDEX_RUN): State.FLOW,
    (State.FLOW, Type.DONE): State.ENDED,
    **_AFTER,
}

#: A domain's stream instead of an image.
_SEGMENTS: Table = {(State.START, Type.IMAGE): State.FLOW, (State.FLOW, Type.SEGMENT): State.FLOW}
DOMAIN_FORWARD_DATA: Table = {**_SEGMENTS, **_ALWAYS}
DOMAIN_FORWARD_CONTROL: Table = {
    **_SEGMENTS,
    **_END,
    **_ALWAYS,
    **_AFTER,
    (State.FLOW, Type.NOTE): State.FLOW,
    (State.ENDED, Type.NOTE): State.ENDED,
    (State.ENDED, Type.SEGMENT): State.ENDED,
}
DOMAIN_BACKWARD_CONTROL: Table = {
    **BACKWARD_DATA,
    (State.FLOW, Type.ANSWER): State.FLOW,
    (State.FLOW, Type.NOTE): State.FLOW,
    (State.FLOW, Type.DONE): State.ENDED,
    **_AFTER,
}


class Machine:
    """Follows one table; `state` is the current state."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.state = State.START

    def step(self, kind: Type) -> None:
        """Go to the state that a frame of type `kind` leads to. Raises PeerError if it may not come now."""
        following = self._table.get((self.state, kind))
        if following is None:
            raise PeerError(f"a {kind.name} frame in state {self.state.name}")
        self.state = following
